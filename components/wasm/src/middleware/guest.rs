//! What a guest may call: the functions of the module `http_handler`.
//! <https://http-wasm.io/http-handler-abi/>

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use outrider_components::middleware::Client;
use wasmtime::{Caller, Linker, Memory, Result, StoreLimits, format_err};

use super::SCOPE;
use super::exchange::{BUFFER_REQUEST, BUFFER_RESPONSE, Exchange};
use super::wasi::Sandbox;

const MODULE: &str = "http_handler";

/// Bytes that a guest logs at once.
const LONGEST: usize = 4096;
/// Headers that a message may have: each takes memory of the sidecar.
const MOST_HEADERS: usize = 1000;
/// Bytes of the value of a header, and of all headers of a message.
const LONGEST_VALUE: u32 = 64 << 10;
const MOST_HEADER_BYTES: usize = 1 << 20;
/// Fuel that a call of the host costs besides, and that of a line in the log.
const CALL: u64 = 100;
pub const LOG: usize = 20_000;
/// What this host can do.
const FEATURES: u32 = BUFFER_REQUEST | BUFFER_RESPONSE;

/// What belongs to an instance of a guest.
pub struct State {
    pub limits: StoreLimits,
    pub sandbox: Sandbox,
    pub config: Arc<[u8]>,
    /// What the guest asked for before the first request.
    pub features: u32,
    pub exchange: Option<Exchange>,
}

type Guest<'a> = Caller<'a, State>;

fn wrong(what: impl std::fmt::Display) -> wasmtime::Error {
    format_err!("{what}")
}

pub fn memory(guest: &mut Guest<'_>) -> Result<Memory> {
    let export = guest.get_export("memory");
    let memory = export.and_then(wasmtime::Extern::into_memory);
    memory.ok_or_else(|| wrong("the guest has no memory"))
}

/// Takes fuel for what the host does with so many bytes: a guest that has the
/// host work pays as if it did so itself.
pub fn charge(guest: &mut Guest<'_>, bytes: usize) -> Result<()> {
    let left = guest.get_fuel()?.checked_sub(CALL + bytes as u64);
    let left = left.ok_or_else(|| wrong("the guest has used up its fuel"))?;
    guest.set_fuel(left)
}

/// Puts bytes into the guest's memory.
pub fn write(guest: &mut Guest<'_>, at: u32, bytes: &[u8]) -> Result<()> {
    charge(guest, bytes.len())?;
    let memory = memory(guest)?;
    memory
        .write(guest, at as usize, bytes)
        .map_err(|_| wrong("out of the guest's memory"))
}

fn read(guest: &mut Guest<'_>, at: u32, length: u32) -> Result<Vec<u8>> {
    charge(guest, length as usize)?;
    let memory = memory(guest)?;
    let data = memory.data(&*guest).get(at as usize..);
    let data = data.and_then(|data| data.get(..length as usize));
    data.map(<[u8]>::to_vec)
        .ok_or_else(|| wrong("out of the guest's memory"))
}

fn text(guest: &mut Guest<'_>, at: u32, length: u32) -> Result<String> {
    String::from_utf8(read(guest, at, length)?).map_err(wrong)
}

/// Writes bytes if there is room for all of them; their length in any case.
fn write_if_fits(guest: &mut Guest<'_>, at: u32, room: u32, bytes: &[u8]) -> Result<u32> {
    let length = u32::try_from(bytes.len()).map_err(wrong)?;
    match length <= room && length > 0 {
        true => write(guest, at, bytes)?,
        // They were put together all the same.
        false => charge(guest, bytes.len())?,
    }
    Ok(length)
}

fn exchange<'a>(guest: &'a mut Guest<'_>) -> Result<&'a mut Exchange> {
    let exchange = guest.data_mut().exchange.as_mut();
    exchange.ok_or_else(|| wrong("there is no request"))
}

/// What only a request that has not gone on can be changed by.
fn before_next<'a>(guest: &'a mut Guest<'_>, what: &str) -> Result<&'a mut Exchange> {
    let exchange = exchange(guest)?;
    match exchange.after_next {
        false => Ok(exchange),
        true => Err(wrong(format!("can't set {what} after next handler"))),
    }
}

/// What an answer can be changed by: the guest's own, or one that is kept for
/// it.
fn own_answer<'a>(guest: &'a mut Guest<'_>, what: &str) -> Result<&'a mut Exchange> {
    let exchange = exchange(guest)?;
    match exchange.after_next && !exchange.has(BUFFER_RESPONSE) {
        false => Ok(exchange),
        true => Err(wrong(format!(
            "can't change {what} after next handler unless buffer-response is enabled"
        ))),
    }
}

/// Adds all functions.
pub fn add(linker: &mut Linker<State>) -> Result<()> {
    settings(linker)?;
    request(linker)?;
    headers(linker)?;
    bodies(linker)?;
    linker.func_wrap(
        MODULE,
        "get_status_code",
        |mut guest: Guest<'_>| -> Result<u32> {
            Ok(u32::from(exchange(&mut guest)?.status.as_u16()))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "set_status_code",
        |mut guest: Guest<'_>, status: u32| -> Result<()> {
            let status = u16::try_from(status).map_err(wrong)?;
            let status = StatusCode::from_u16(status).map_err(wrong)?;
            own_answer(&mut guest, "the status")?.status = status;
            Ok(())
        },
    )?;
    Ok(())
}

fn settings(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(
        MODULE,
        "enable_features",
        |mut guest: Guest<'_>, asked: u32| {
            let state = guest.data_mut();
            let features = match &mut state.exchange {
                Some(exchange) => &mut exchange.features,
                None => &mut state.features,
            };
            *features |= asked & FEATURES;
            *features
        },
    )?;
    linker.func_wrap(
        MODULE,
        "get_config",
        |mut guest: Guest<'_>, at: u32, room: u32| -> Result<u32> {
            let config = guest.data().config.clone();
            write_if_fits(&mut guest, at, room, &config)
        },
    )?;
    linker.func_wrap(MODULE, "log_enabled", |level: i32| i32::from(level < 3))?;
    linker.func_wrap(
        MODULE,
        "log",
        |mut guest: Guest<'_>, level: i32, at: u32, length: u32| -> Result<()> {
            let shown = length.min(LONGEST as u32);
            charge(&mut guest, LOG)?;
            let bytes = read(&mut guest, at, shown)?;
            let text = String::from_utf8_lossy(&bytes);
            match level {
                -1 => tracing::debug!(target: SCOPE, "{text}"),
                0 => tracing::info!(target: SCOPE, "{text}"),
                1 => tracing::warn!(target: SCOPE, "{text}"),
                2 => tracing::error!(target: SCOPE, "{text}"),
                _ => {}
            }
            Ok(())
        },
    )?;
    Ok(())
}

fn request(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(
        MODULE,
        "get_method",
        |mut guest: Guest<'_>, at: u32, room: u32| -> Result<u32> {
            let method = exchange(&mut guest)?.method.clone();
            write_if_fits(&mut guest, at, room, method.as_str().as_bytes())
        },
    )?;
    linker.func_wrap(
        MODULE,
        "set_method",
        |mut guest: Guest<'_>, at: u32, length: u32| -> Result<()> {
            let method = read(&mut guest, at, length)?;
            let method = Method::from_bytes(&method).map_err(wrong)?;
            before_next(&mut guest, "method")?.method = method;
            Ok(())
        },
    )?;
    linker.func_wrap(
        MODULE,
        "get_uri",
        |mut guest: Guest<'_>, at: u32, room: u32| -> Result<u32> {
            let uri = exchange(&mut guest)?.uri().to_owned();
            write_if_fits(&mut guest, at, room, uri.as_bytes())
        },
    )?;
    linker.func_wrap(
        MODULE,
        "set_uri",
        |mut guest: Guest<'_>, at: u32, length: u32| -> Result<()> {
            let uri = text(&mut guest, at, length)?;
            before_next(&mut guest, "uri")?.set_uri(&uri).map_err(wrong)
        },
    )?;
    linker.func_wrap(
        MODULE,
        "get_protocol_version",
        |mut guest: Guest<'_>, at: u32, room: u32| -> Result<u32> {
            let version = match exchange(&mut guest)?.version {
                Version::HTTP_2 => "HTTP/2.0",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            };
            write_if_fits(&mut guest, at, room, version.as_bytes())
        },
    )?;
    linker.func_wrap(
        MODULE,
        "get_source_addr",
        |mut guest: Guest<'_>, at: u32, room: u32| -> Result<u32> {
            let client = exchange(&mut guest)?.client;
            let client = client.map(|Client(address)| address.to_string());
            let client = client.unwrap_or_default();
            write_if_fits(&mut guest, at, room, client.as_bytes())
        },
    )?;
    Ok(())
}

/// Headers of a request (0) or an answer (1). There are no trailers here.
fn map(exchange: &mut Exchange, kind: u32) -> Result<&mut HeaderMap> {
    match kind {
        0 => Ok(&mut exchange.request_headers),
        1 => Ok(&mut exchange.response_headers),
        _ => Err(wrong("trailers are not supported")),
    }
}

/// Headers that the guest may change.
fn own_map<'a>(guest: &'a mut Guest<'_>, kind: u32) -> Result<&'a mut HeaderMap> {
    let exchange = match kind {
        0 => before_next(guest, "request header")?,
        _ => own_answer(guest, "response headers")?,
    };
    map(exchange, kind)
}

/// Texts with a null behind each, if there is room: their count and length.
fn write_list(guest: &mut Guest<'_>, at: u32, room: u32, list: &[Vec<u8>]) -> Result<u64> {
    let mut bytes = Vec::new();
    for one in list {
        bytes.extend_from_slice(one);
        bytes.push(0);
    }
    let length = write_if_fits(guest, at, room, &bytes)?;
    Ok((list.len() as u64) << 32 | u64::from(length))
}

/// A header that a guest wants to have: five numbers for kind, name and value.
fn header(
    guest: &mut Guest<'_>,
    name: (u32, u32),
    value: (u32, u32),
) -> Result<(HeaderName, HeaderValue)> {
    if name.1 > LONGEST_VALUE || value.1 > LONGEST_VALUE {
        return Err(wrong(format!(
            "a header has more than {LONGEST_VALUE} bytes"
        )));
    }
    let name = HeaderName::from_bytes(&read(guest, name.0, name.1)?).map_err(wrong)?;
    // All headers are counted for each that comes.
    charge(guest, 10 * MOST_HEADERS)?;
    let value = HeaderValue::from_bytes(&read(guest, value.0, value.1)?).map_err(wrong)?;
    Ok((name, value))
}

/// Whether another header has room.
fn has_room(headers: &HeaderMap, name: &HeaderName, value: &HeaderValue) -> Result<()> {
    if headers.len() >= MOST_HEADERS {
        return Err(wrong(format!("there are more than {MOST_HEADERS} headers")));
    }
    let sizes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    let bytes = sizes.sum::<usize>() + name.as_str().len() + value.len();
    match bytes <= MOST_HEADER_BYTES {
        true => Ok(()),
        false => Err(wrong(format!(
            "the headers have more than {MOST_HEADER_BYTES} bytes"
        ))),
    }
}

fn headers(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap(
        MODULE,
        "get_header_names",
        |mut guest: Guest<'_>, kind: u32, at: u32, room: u32| -> Result<u64> {
            let names: Vec<_> = match kind {
                2 | 3 => Vec::new(),
                _ => {
                    let headers = map(exchange(&mut guest)?, kind)?;
                    headers
                        .keys()
                        .map(|name| name.as_str().as_bytes().to_vec())
                        .collect()
                }
            };
            write_list(&mut guest, at, room, &names)
        },
    )?;
    linker.func_wrap(
        MODULE,
        "get_header_values",
        |mut guest: Guest<'_>,
         kind: u32,
         name: u32,
         length: u32,
         at: u32,
         room: u32|
         -> Result<u64> {
            let name = read(&mut guest, name, length)?;
            let values: Vec<_> = match (kind, HeaderName::from_bytes(&name)) {
                (2 | 3, _) | (_, Err(_)) => Vec::new(),
                (_, Ok(name)) => {
                    let headers = map(exchange(&mut guest)?, kind)?;
                    let values = headers.get_all(name).iter();
                    values.map(|value| value.as_bytes().to_vec()).collect()
                }
            };
            write_list(&mut guest, at, room, &values)
        },
    )?;
    changed(linker)
}

/// A function of the guest that puts a value of a header where there is room.
fn put(
    linker: &mut Linker<State>,
    name: &str,
    put: fn(&mut HeaderMap, HeaderName, HeaderValue),
) -> Result<()> {
    linker.func_wrap(
        MODULE,
        name,
        move |mut guest: Guest<'_>,
              kind: u32,
              name: u32,
              length: u32,
              value: u32,
              size: u32|
              -> Result<()> {
            let (name, value) = header(&mut guest, (name, length), (value, size))?;
            let headers = own_map(&mut guest, kind)?;
            has_room(headers, &name, &value)?;
            put(headers, name, value);
            Ok(())
        },
    )?;
    Ok(())
}

/// What a guest changes of headers.
fn changed(linker: &mut Linker<State>) -> Result<()> {
    put(linker, "set_header_value", |headers, name, value| {
        headers.insert(name, value);
    })?;
    put(linker, "add_header_value", |headers, name, value| {
        headers.append(name, value);
    })?;
    linker.func_wrap(
        MODULE,
        "remove_header",
        |mut guest: Guest<'_>, kind: u32, name: u32, length: u32| -> Result<()> {
            let name = read(&mut guest, name, length)?;
            let headers = own_map(&mut guest, kind)?;
            if let Ok(name) = HeaderName::from_bytes(&name) {
                headers.remove(name);
            }
            Ok(())
        },
    )?;
    Ok(())
}

fn bodies(linker: &mut Linker<State>) -> Result<()> {
    linker.func_wrap_async(
        MODULE,
        "read_body",
        |mut guest: Guest<'_>, (kind, at, room): (u32, u32, u32)| {
            Box::new(async move {
                if room == 0 {
                    return Err(wrong("buf_limit==0 reading body"));
                }
                // No more than the guest has room for.
                let memory = memory(&mut guest)?.data_size(&guest);
                let wanted = (room as usize).min(memory);
                let exchange = exchange(&mut guest)?;
                let (after, keeps) = (exchange.after_next, exchange.has(BUFFER_REQUEST));
                let read = match kind {
                    0 if after => return Err(wrong("can't read request body after next handler")),
                    0 => exchange.request.read(wanted, keeps).await,
                    1 if after && !exchange.has(BUFFER_RESPONSE) => {
                        return Err(wrong(
                            "can't read response body unless buffer-response is enabled",
                        ));
                    }
                    1 => exchange.response.read(wanted, true).await,
                    _ => return Err(wrong("unsupported body kind")),
                };
                let (bytes, is_end) = read.map_err(wrong)?;
                write(&mut guest, at, &bytes)?;
                Ok::<u64, wasmtime::Error>(u64::from(is_end) << 32 | bytes.len() as u64)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "write_body",
        |mut guest: Guest<'_>, kind: u32, at: u32, length: u32| -> Result<()> {
            let bytes = read(&mut guest, at, length)?;
            let content = match kind {
                0 => &mut before_next(&mut guest, "request body")?.request,
                1 => &mut own_answer(&mut guest, "response body")?.response,
                _ => return Err(wrong("unsupported body kind")),
            };
            content.write(&bytes).map_err(wrong)
        },
    )?;
    Ok(())
}
