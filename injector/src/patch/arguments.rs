//! The sidecar's command line, in its fixed order.

use outrider_crds::annotations as a;
use outrider_crds::annotations::Map;

use super::settings::{Actors, Settings};
use super::{Error, HTTP_PORT, PUBLIC_PORT, Situation};

struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, flag: impl Into<String>) {
        self.0.push(flag.into());
    }

    fn pair(&mut self, flag: &str, value: impl ToString) {
        self.0.extend([flag.to_owned(), value.to_string()]);
    }

    fn text(&mut self, flag: &str, value: &str) {
        if !value.is_empty() {
            self.pair(flag, value);
        }
    }

    fn given(&mut self, flag: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.pair(flag, value);
        }
    }

    fn switch(&mut self, flag: &str, on: bool) {
        if on {
            self.flag(flag);
        }
    }
}

/// Everything after the program.
pub fn arguments(map: &Map, app_id: &str, situation: &Situation<'_>) -> Result<Vec<String>, Error> {
    let settings = situation.settings;
    let mut args = Arguments(Vec::new());
    basics(map, app_id, settings, &mut args)?;
    metrics(map, &mut args)?;
    args.text("--config", a::CONFIG.read(map));
    args.text("--app-channel-address", a::APP_CHANNEL_ADDRESS.read(map));
    placement(map, settings.actors.as_ref(), &mut args);
    args.given("--reminders-service", settings.reminders.as_ref());
    args.text(
        "--sentry-request-jwt-audiences",
        a::SENTRY_REQUEST_JWT_AUDIENCES.read(map),
    );
    if let Some(on) = a::ENABLE_API_LOGGING.read(map) {
        args.flag(format!("--enable-api-logging={on}"));
    }
    args.switch(
        "--disable-builtin-k8s-secret-store",
        a::DISABLE_BUILTIN_K8S_SECRET_STORE.read(map),
    );
    health_check(map, &mut args)?;
    args.given(
        "--app-binding-options-timeout",
        a::APP_BINDING_OPTIONS_TIMEOUT.read_filled(map),
    );
    args.switch("--log-as-json", a::LOG_AS_JSON.read(map));
    args.switch("--enable-profiling", a::ENABLE_PROFILING.read(map));
    args.switch("--enable-mtls", situation.mtls);
    args.switch("--app-ssl", a::APP_SSL.read(map));
    sizes(map, &mut args)?;
    if !a::UNIX_DOMAIN_SOCKET_PATH.read(map).is_empty() {
        args.pair("--unix-domain-socket", super::volumes::SOCKET_FOLDER);
    }
    args.given(
        "--dapr-block-shutdown-duration",
        a::BLOCK_SHUTDOWN_DURATION.read_filled(map),
    );
    args.given(
        "--actors-disseminate-timeout",
        a::ACTORS_DISSEMINATE_TIMEOUT.read_filled(map),
    );
    scheduler(map, settings, &mut args);
    args.given(
        "--disable-init-endpoints",
        a::DISABLE_INIT_ENDPOINTS.read_filled(map),
    );
    Ok(args.0)
}

/// Ports, names and the control plane.
fn basics(map: &Map, app_id: &str, settings: &Settings, args: &mut Arguments) -> Result<(), Error> {
    args.pair("--dapr-http-port", HTTP_PORT);
    args.pair("--dapr-grpc-port", a::GRPC_PORT.read(map)?);
    args.pair(
        "--dapr-internal-grpc-port",
        a::INTERNAL_GRPC_PORT.read(map)?,
    );
    args.pair("--dapr-listen-addresses", a::LISTEN_ADDRESSES.read(map));
    args.pair("--dapr-public-port", PUBLIC_PORT);
    args.pair("--app-id", app_id);
    args.pair("--app-protocol", a::APP_PROTOCOL.read_filled(map));
    args.pair("--log-level", a::LOG_LEVEL.read_filled(map));
    args.pair(
        "--dapr-graceful-shutdown-seconds",
        a::GRACEFUL_SHUTDOWN_SECONDS.read(map)?,
    );
    args.pair("--mode", "kubernetes");
    args.pair("--control-plane-address", settings.address("dapr-api", 443));
    args.pair("--sentry-address", settings.address("dapr-sentry", 443));
    let app_port = a::APP_PORT.read(map)?;
    args.given("--app-port", Some(app_port).filter(|port| *port > 0));
    Ok(())
}

fn metrics(map: &Map, args: &mut Arguments) -> Result<(), Error> {
    let port = a::METRICS_PORT.read(map)?;
    if a::ENABLE_METRICS.read(map) {
        args.flag("--enable-metrics");
        args.pair("--metrics-port", port);
    } else {
        // The sidecar's own default is on.
        args.flag("--enable-metrics=false");
    }
    Ok(())
}

fn health_check(map: &Map, args: &mut Arguments) -> Result<(), Error> {
    if !a::ENABLE_APP_HEALTH_CHECK.read(map) {
        return Ok(());
    }
    args.flag("--enable-app-health-check");
    args.pair(
        "--app-health-check-path",
        a::APP_HEALTH_CHECK_PATH.read_filled(map),
    );
    args.pair(
        "--app-health-probe-interval",
        a::APP_HEALTH_PROBE_INTERVAL.read(map)?,
    );
    args.pair(
        "--app-health-probe-timeout",
        a::APP_HEALTH_PROBE_TIMEOUT.read(map)?,
    );
    args.pair("--app-health-threshold", a::APP_HEALTH_THRESHOLD.read(map)?);
    Ok(())
}

/// Limits of concurrency, bodies and buffers.
fn sizes(map: &Map, args: &mut Arguments) -> Result<(), Error> {
    args.given("--app-max-concurrency", a::APP_MAX_CONCURRENCY.read(map)?);
    args.given(
        "--dapr-http-max-request-size",
        a::HTTP_MAX_REQUEST_SIZE.read(map)?,
    );
    args.text("--max-body-size", a::MAX_BODY_SIZE.read(map));
    args.given(
        "--dapr-http-read-buffer-size",
        a::HTTP_READ_BUFFER_SIZE.read(map)?,
    );
    args.text("--read-buffer-size", a::READ_BUFFER_SIZE.read(map));
    Ok(())
}

fn scheduler(map: &Map, settings: &Settings, args: &mut Arguments) {
    let default = || settings.address("dapr-scheduler-server-a", 443);
    let address = match a::SCHEDULER_HOST_ADDRESS.read(map) {
        // An empty one turns the scheduler off.
        Some(address) => Some(unquoted(address).to_owned()),
        None => settings.scheduler.then(default),
    };
    args.given("--scheduler-host-address", address);
}

fn placement(map: &Map, actors: Option<&Actors>, args: &mut Arguments) {
    match (a::PLACEMENT_HOST_ADDRESS.read(map), actors) {
        (Some(address), _) => args.text("--placement-host-address", unquoted(address)),
        (None, Some(Actors::Placement(address))) => args.pair("--placement-host-address", address),
        (None, Some(Actors::Other(service))) => args.pair("--actors-service", service),
        (None, None) => {}
    }
}

/// Quotes and then blanks are trimmed: `""` is how some templates write nothing.
fn unquoted(address: &str) -> &str {
    address.trim_matches(['"', '\'']).trim()
}
