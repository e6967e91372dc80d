//! Flags whose text makes sense.

use super::Failure;
use crate::flags::{Flags, Mode, Protocol};

/// What the flags say, checked.
pub struct Settings {
    pub mode: Mode,
    pub protocol: Protocol,
    pub app_port: u16,
    pub http_port: u16,
    pub grpc_port: u16,
    pub public_port: Option<u16>,
    pub internal_port: Option<u16>,
    pub metrics_port: u16,
    pub profile_port: Option<u16>,
    pub namespace: String,
}

/// What the application speaks.
fn protocol(flags: &Flags) -> Result<Protocol, Failure> {
    Ok(
        match (
            flags.app.protocol.to_ascii_lowercase().as_str(),
            flags.app.ssl,
        ) {
            ("" | "http", false) => Protocol::Http,
            ("" | "http", true) | ("https", _) => Protocol::Https,
            ("h2c", _) => Protocol::H2c,
            ("grpc", false) => Protocol::Grpc,
            ("grpc", true) | ("grpcs", _) => Protocol::Grpcs,
            _ => {
                return Err(
                    format!("invalid value for 'app-protocol': {}", flags.app.protocol).into(),
                );
            }
        },
    )
}

pub fn settings(flags: &Flags) -> Result<Settings, Failure> {
    let port = |text: &str, name: &str| -> Result<u16, Failure> {
        text.parse::<i64>()
            .map_err(|_| {
                format!(
                    "error parsing {name}: strconv.Atoi: parsing {}: invalid syntax",
                    outrider_kit::quote::go(text)
                )
                .into()
            })
            .map(|n| u16::try_from(n).unwrap_or(u16::MAX))
    };
    let optional = |text: &str, name: &str| {
        (!text.is_empty() && text != "0")
            .then(|| port(text, name))
            .transpose()
    };
    let mode = match flags.mode.as_str() {
        "standalone" => Mode::Standalone,
        "kubernetes" => Mode::Kubernetes,
        other => return Err(format!("invalid mode: {other}").into()),
    };
    if mode == Mode::Standalone {
        if flags.app_id.is_empty() {
            return Err("parameter app-id cannot be empty".into());
        }
        if flags.app_id.contains('.') {
            return Err("parameter app-id cannot contain dots".into());
        }
    }
    let protocol = protocol(flags)?;
    let probes = &flags.app.probes;
    if probes.timeout > probes.interval {
        return Err(
            "value for 'health-probe-timeout' must be smaller than 'health-probe-interval'".into(),
        );
    }
    let settings = Settings {
        mode,
        protocol,
        app_port: if flags.app.port.is_empty() {
            0
        } else {
            port(&flags.app.port, "app-port")?
        },
        http_port: port(&flags.api.http_port, "dapr-http-port flag")?,
        grpc_port: port(&flags.api.grpc_port, "dapr-grpc-port flag")?,
        public_port: optional(&flags.api.public_port, "dapr-public-port")?,
        internal_port: optional(&flags.api.internal_port, "dapr-internal-grpc-port")?,
        metrics_port: port(&flags.metrics.port, "metrics-port flag")
            .map_err(|_| format!("failed to parse metrics port: {}", flags.metrics.port))?,
        profile_port: match &flags.api.profile_port {
            None => None,
            Some(given) => Some(port(given, "profile-port flag")?),
        },
        namespace: flags
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned()),
    };
    if settings.app_port != 0 {
        for (name, other) in [
            ("dapr-http-port", settings.http_port),
            ("dapr-grpc-port", settings.grpc_port),
        ] {
            if other == settings.app_port {
                return Err(format!(
                    "the '{name}' argument value {other} conflicts with 'app-port'"
                )
                .into());
            }
        }
    }
    Ok(settings)
}
