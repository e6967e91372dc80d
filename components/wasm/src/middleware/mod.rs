//! `middleware.http.wasm`: <https://docs.dapr.io/reference/components-reference/supported-middleware/middleware-wasm/>.

mod exchange;
mod guest;
#[cfg(all(test, feature = "text"))]
mod tests;
mod wasi;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use outrider_components::middleware::{Middleware, Next, Outcome, Request, refusal_by_status};
use outrider_components::{Context, Error, Field, Metadata, Truthy};
use wasmtime::{Config, Engine, InstancePre, Linker, Module, Store, StoreLimitsBuilder, TypedFunc};

use self::exchange::Exchange;
use self::guest::State;
use self::wasi::Sandbox;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

const SCOPE: &str = "dapr.contrib";

/// Bytes of a module.
const LARGEST_MODULE: usize = 64 << 20;
const FETCH_LIMIT: Duration = Duration::from_secs(30);
/// Bytes of an instance's memory, and elements of its tables.
const MEMORY: usize = 64 << 20;
const TABLE: usize = 100_000;
/// Instructions of one call, and after how many others get a turn.
const FUEL: u64 = 500_000_000;
const TURN: u64 = 1_000_000;
/// Instances that are kept for the next requests.
const IDLE: usize = 16;

outrider_components::fields! {
    struct Fields {
        /// Where the module is: `file://`, `http://` or `https://`. It is a
        /// guest of the http-wasm HTTP handler ABI, and has 64 MiB of memory
        /// and 500 million instructions for each call.
        "url" => url: String, missing "wasm: failed to parse metadata: missing url";
        /// Text that the guest may read.
        "guestConfig" => config: Option<String>;
        /// Whether clocks and random numbers of the guest say nothing of this
        /// machine.
        "strictSandbox" => strict: Truthy = "false";
    }
}

struct Wasm {
    pre: InstancePre<State>,
    config: Arc<[u8]>,
    strict: bool,
    idle: Mutex<Vec<Guest>>,
}

/// An instance of the module.
struct Guest {
    store: Store<State>,
    handle_request: TypedFunc<(), i64>,
    handle_response: TypedFunc<(i32, i32), ()>,
}

/// Compiles the module, and makes an instance to see that it works.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Middleware>, Error> {
    let fields = Fields::read(&metadata)?;
    let module = load(&fields.url)
        .await
        .map_err(|cause| Error::invalid(format!("wasm: failed to parse metadata: {cause}")))?;
    let compiling = tokio::task::spawn_blocking(move || compile(&module)).await;
    let pre = compiling
        .map_err(|error| Error::internal(format!("wasm: error compiling guest: {error}")))?
        .map_err(|cause| Error::invalid(format!("wasm: {cause:#}")))?;
    let Truthy(strict) = fields.strict;
    let wasm = Wasm {
        pre,
        config: fields.config.unwrap_or_default().into_bytes().into(),
        strict,
        idle: Mutex::default(),
    };
    let guest = wasm
        .instance()
        .await
        .map_err(|cause| Error::invalid(format!("wasm: error instantiating guest: {cause:#}")))?;
    wasm.keep(guest);
    Ok(Arc::new(wasm))
}

async fn load(url: &str) -> Result<Vec<u8>, String> {
    let (scheme, path) = url.split_once("://").ok_or(format!("invalid URL: {url}"))?;
    match scheme {
        "file" => {
            let read = tokio::fs::read(path).await;
            read.map_err(|error| format!("{path}: {error}"))
        }
        "http" | "https" => fetch(url).await,
        other => Err(format!("unsupported URL scheme: {other}")),
    }
}

async fn fetch(url: &str) -> Result<Vec<u8>, String> {
    let failed = |error: reqwest::Error| outrider_kit::error::chain(&error.without_url());
    let client = reqwest::Client::builder().timeout(FETCH_LIMIT).build();
    let mut response = client
        .map_err(failed)?
        .get(url)
        .send()
        .await
        .map_err(failed)?;
    if response.status() != StatusCode::OK {
        return Err(format!(
            "received {} status code",
            response.status().as_u16()
        ));
    }
    let mut module = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if module.len() + chunk.len() > LARGEST_MODULE {
            return Err(format!("the module has more than {LARGEST_MODULE} bytes"));
        }
        module.extend_from_slice(&chunk);
    }
    Ok(module)
}

fn compile(module: &[u8]) -> wasmtime::Result<InstancePre<State>> {
    let mut config = Config::new();
    config.consume_fuel(true);
    let engine = Engine::new(&config)?;
    let module = Module::new(&engine, module)?;
    let mut linker = Linker::new(&engine);
    guest::add(&mut linker)?;
    wasi::add(&mut linker)?;
    linker.instantiate_pre(&module)
}

impl Wasm {
    async fn instance(&self) -> wasmtime::Result<Guest> {
        let limits = StoreLimitsBuilder::new()
            .memory_size(MEMORY)
            .table_elements(TABLE)
            .instances(1)
            .memories(1)
            .tables(10)
            .build();
        let state = State {
            limits,
            sandbox: Sandbox::new(self.strict),
            config: self.config.clone(),
            features: 0,
            exchange: None,
        };
        let mut store = Store::new(self.pre.module().engine(), state);
        store.limiter(|state| &mut state.limits);
        store.set_fuel(FUEL)?;
        store.fuel_async_yield_interval(Some(TURN))?;
        let instance = self.pre.instantiate_async(&mut store).await?;
        // What a module that is a program does before it is called.
        for name in ["_initialize", "_start"] {
            if let Ok(start) = instance.get_typed_func::<(), ()>(&mut store, name) {
                start.call_async(&mut store, ()).await?;
                break;
            }
        }
        Ok(Guest {
            handle_request: instance.get_typed_func(&mut store, "handle_request")?,
            handle_response: instance.get_typed_func(&mut store, "handle_response")?,
            store,
        })
    }

    fn idle(&self) -> Option<Guest> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop()
    }

    /// Keeps an instance for another request.
    fn keep(&self, guest: Guest) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(guest);
        }
    }

    async fn pass(&self, request: Request, next: Next<'_>) -> wasmtime::Result<Outcome> {
        let mut guest = match self.idle() {
            Some(guest) => guest,
            None => self.instance().await?,
        };
        let features = guest.store.data().features;
        guest.store.data_mut().exchange = Some(Exchange::new(request, features));
        let next_and_context = guest.request().await?;
        let context = (next_and_context >> 32) as i32;
        if next_and_context as u32 != 1 {
            let exchange = guest.store.data_mut().exchange.take();
            self.keep(guest);
            return Ok(exchange.map(Exchange::response).ok_or("no request".into()));
        }
        let request = guest.exchange()?.request();
        let outcome = next.run(request).await;
        let response = match outcome {
            Ok(response) => response,
            Err(error) => {
                guest.exchange()?.after_next = true;
                guest.response(context, true).await?;
                guest.store.data_mut().exchange = None;
                self.keep(guest);
                return Ok(Err(error));
            }
        };
        let passing = guest.exchange()?.answered(response);
        guest.response(context, false).await?;
        let exchange = guest.store.data_mut().exchange.take();
        self.keep(guest);
        let kept = || exchange.map(Exchange::response).ok_or("no request".into());
        Ok(passing.map_or_else(kept, Ok))
    }
}

impl Guest {
    fn exchange(&mut self) -> wasmtime::Result<&mut Exchange> {
        let exchange = self.store.data_mut().exchange.as_mut();
        exchange.ok_or_else(|| wasmtime::format_err!("there is no request"))
    }

    async fn request(&mut self) -> wasmtime::Result<i64> {
        self.store.set_fuel(FUEL)?;
        let call = self.handle_request.call_async(&mut self.store, ());
        call.await
    }

    async fn response(&mut self, context: i32, failed: bool) -> wasmtime::Result<()> {
        self.store.set_fuel(FUEL)?;
        let arguments = (context, i32::from(failed));
        let call = self.handle_response.call_async(&mut self.store, arguments);
        call.await
    }
}

#[async_trait]
impl Middleware for Wasm {
    async fn handle(&self, request: Request, next: Next<'_>) -> Outcome {
        // An instance that has failed is not used again.
        self.pass(request, next).await.unwrap_or_else(|cause| {
            tracing::error!(target: SCOPE, "the wasm guest failed: {cause:#}");
            Ok(refusal_by_status(StatusCode::INTERNAL_SERVER_ERROR))
        })
    }
}
