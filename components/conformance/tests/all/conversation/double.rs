//! Services that repeat what they were sent. They refuse requests that their
//! models would refuse, and fail as they are asked to.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What a service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OpenAI's chat completions.
    Chat,
    /// Anthropic's messages.
    Messages,
}

type Asked = Arc<Mutex<Vec<(HeaderMap, Value)>>>;

/// A service; dropping it ends it.
pub struct Double {
    pub url: String,
    asked: Asked,
    _tasks: JoinSet<()>,
}

impl Double {
    pub async fn start(protocol: Protocol) -> Double {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("is bound");
        let asked = Asked::default();
        let router = Router::new()
            .fallback(answer)
            .with_state((protocol, asked.clone()));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Double {
            url: format!("http://{address}/v1"),
            asked,
            _tasks: tasks,
        }
    }

    /// Headers and bodies of the requests until now. Another header says where
    /// they went.
    pub fn asked(&self) -> Vec<(HeaderMap, Value)> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }
}

async fn answer(State((protocol, asked)): State<(Protocol, Asked)>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map(ToString::to_string);
    let path = path.unwrap_or_default();
    let body = axum::body::to_bytes(body, usize::MAX).await;
    let body = serde_json::from_slice::<Value>(&body.expect("a body"));
    let body = body.expect("is JSON");
    let mut headers = parts.headers;
    let shown = HeaderValue::try_from(&path).expect("is text");
    headers.insert("asked-path", shown);
    asked
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push((headers, body.clone()));
    let last = last_text(&body);
    match last.as_str() {
        "slow" => std::future::pending().await,
        "huge" => endless(StatusCode::OK),
        "huge 500" => endless(StatusCode::INTERNAL_SERVER_ERROR),
        "malformed" => "{\"choices\":[{\"message\":".into_response(),
        "broken" => broken(),
        "elsewhere" => {
            let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
            let there = HeaderValue::from_static("/v1/elsewhere");
            response.headers_mut().insert(header::LOCATION, there);
            response
        }
        "401" | "429" => {
            let status = last.parse().unwrap_or(StatusCode::BAD_REQUEST);
            let body = json!({"error": {"message": "no such key"}}).to_string();
            (status, body).into_response()
        }
        _ => {
            let answered = match protocol {
                Protocol::Chat => chat(&path, &body, &last),
                Protocol::Messages => messages(&path, &body, &last),
            };
            match answered {
                Ok(answer) => answer.to_string().into_response(),
                Err(why) => {
                    let body = json!({"error": {"message": why}}).to_string();
                    (StatusCode::BAD_REQUEST, body).into_response()
                }
            }
        }
    }
}

fn endless(status: StatusCode) -> Response {
    let chunk = Bytes::from(vec![b' '; 1 << 16]);
    let chunks = stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
    (status, Body::from_stream(chunks)).into_response()
}

fn broken() -> Response {
    let error = || Err(std::io::Error::other("breaks off"));
    let chunks = stream::iter([Ok(Bytes::from("{")), error()]);
    Body::from_stream(chunks).into_response()
}

/// What was said last, also as the result of a tool.
fn last_text(body: &Value) -> String {
    let last = body["messages"].as_array().and_then(|all| all.last());
    let content = last.map_or(&Value::Null, |last| &last["content"]);
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let last = parts.last().unwrap_or(&Value::Null);
            let text = last.get("text").or_else(|| last.get("content"));
            text.and_then(Value::as_str).unwrap_or_default().to_owned()
        }
        _ => String::new(),
    }
}

fn chat(path: &str, body: &Value, last: &str) -> Result<Value, &'static str> {
    let path = path.split('?').next().unwrap_or_default();
    if !path.ends_with("/chat/completions") {
        return Err("no such path");
    }
    let mut calls: Vec<&str> = Vec::new();
    for message in body["messages"].as_array().ok_or("no messages")? {
        match message["role"].as_str() {
            Some("user" | "system") if !message["content"].is_null() => {}
            Some("assistant") => {
                for call in message["tool_calls"].as_array().into_iter().flatten() {
                    let arguments = call["function"]["arguments"].as_str();
                    let arguments = arguments.ok_or("arguments are text")?;
                    serde_json::from_str::<Value>(arguments).map_err(|_| "not JSON")?;
                    calls.push(call["id"].as_str().ok_or("no id")?);
                }
            }
            Some("tool") => {
                let id = message["tool_call_id"].as_str().ok_or("no id")?;
                if !calls.contains(&id) {
                    return Err("a result without a call");
                }
            }
            _ => return Err("no such role"),
        }
    }
    let choice = &body["tool_choice"];
    let required = matches!(choice.as_str(), Some("required" | "any"));
    let named = choice["function"]["name"].as_str();
    let first = body["tools"][0]["function"]["name"].as_str();
    let message = match named.or(first.filter(|_| required)) {
        _ if last == "silence" => json!({"content": ""}),
        Some(name) => json!({"content": null, "tool_calls": [{
            "id": "call_1", "type": "function",
            "function": {"name": name, "arguments": "{\"city\":\"Oslo\"}"},
        }]}),
        None => match &body["response_format"] {
            Value::Null => json!({"content": last}),
            format if format["json_schema"]["strict"] != true => return Err("not strict"),
            format if !format["json_schema"]["schema"]["strict"].is_null() => {
                return Err("no word of a schema");
            }
            _ => json!({"content": json!({"city": last}).to_string()}),
        },
    };
    Ok(json!({
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }))
}

fn messages(path: &str, body: &Value, last: &str) -> Result<Value, &'static str> {
    if path != "/v1/messages" || !body["max_tokens"].is_u64() {
        return Err("no such path, or no max_tokens");
    }
    let mut before = "";
    let mut calls: Vec<&str> = Vec::new();
    for message in body["messages"].as_array().ok_or("no messages")? {
        let role = message["role"].as_str().ok_or("no role")?;
        if role == before || !matches!(role, "user" | "assistant") {
            return Err("roles alternate");
        }
        before = role;
        for block in message["content"].as_array().ok_or("no content")? {
            match block["type"].as_str() {
                Some("text") if block["text"] != "" => {}
                Some("tool_use") if block["input"].is_object() => {
                    calls.push(block["id"].as_str().ok_or("no id")?);
                }
                Some("tool_result") => {
                    let id = block["tool_use_id"].as_str().ok_or("no id")?;
                    if !calls.contains(&id) {
                        return Err("a result without a call");
                    }
                }
                _ => return Err("no such block"),
            }
        }
    }
    let choice = &body["tool_choice"];
    let name = match choice["type"].as_str() {
        Some("tool") => choice["name"].as_str(),
        Some("any") => body["tools"][0]["name"].as_str(),
        _ => None,
    };
    let content = match name {
        _ if last == "silence" => json!([]),
        Some(name) => {
            let city = if name == "place" { last } else { "Oslo" };
            json!([
                {"type": "thinking", "thinking": "well"},
                {"type": "tool_use", "id": "toolu_1", "name": name, "input": {"city": city}},
            ])
        }
        None => json!([{"type": "text", "text": last}]),
    };
    Ok(json!({
        "content": content,
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 2, "output_tokens": 4, "cache_read_input_tokens": 1},
    }))
}
