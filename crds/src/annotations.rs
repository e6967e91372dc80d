//! Every `dapr.io/*` annotation: name, type and default, and how its text is read.

use std::collections::BTreeMap;

use outrider_kit::truthy;

/// How much of a wrong value is shown.
const SHOWN: usize = 128;

/// Annotations of a pod or of a pod template.
pub type Map = BTreeMap<String, String>;

/// An annotation of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Annotation<T> {
    pub name: &'static str,
    pub default: T,
}

/// A value that does not fit its annotation's type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {name} must be {expected}, not {value:?}")]
pub struct Error {
    pub name: &'static str,
    pub expected: &'static str,
    pub value: String,
}

impl<T> Annotation<T> {
    /// The text, if the key is there at all.
    pub fn text<'a>(&self, map: &'a Map) -> Option<&'a str> {
        map.get(self.name).map(String::as_str)
    }

    /// The text without blanks around it; an annotation that is left empty counts as absent.
    fn filled<'a>(&self, map: &'a Map) -> Option<&'a str> {
        self.text(map)
            .map(str::trim)
            .filter(|text| !text.is_empty())
    }

    /// Shows the beginning of the value, which may be as long as its author likes.
    pub fn error(&self, expected: &'static str, value: &str) -> Error {
        Error {
            name: self.name,
            expected,
            value: value.chars().take(SHOWN).collect(),
        }
    }
}

impl Annotation<bool> {
    /// Any word but the few that mean true is false, an empty one too.
    pub fn read(&self, map: &Map) -> bool {
        self.text(map).map_or(self.default, truthy)
    }
}

impl Annotation<Option<bool>> {
    pub fn read(&self, map: &Map) -> Option<bool> {
        self.text(map).map(truthy).or(self.default)
    }
}

impl Annotation<i64> {
    pub fn read(&self, map: &Map) -> Result<i64, Error> {
        self.filled(map)
            .map_or(Ok(self.default), |text| integer(self, text))
    }
}

impl Annotation<Option<i64>> {
    pub fn read(&self, map: &Map) -> Result<Option<i64>, Error> {
        self.filled(map).map(|text| integer(self, text)).transpose()
    }
}

impl Annotation<&'static str> {
    /// A key with an empty value counts, and gives the empty text. Blanks around a text do not.
    pub fn read<'a>(&self, map: &'a Map) -> &'a str {
        self.text(map).unwrap_or(self.default).trim()
    }

    /// For values that cannot be empty: such an annotation counts as absent.
    pub fn read_filled<'a>(&self, map: &'a Map) -> &'a str {
        self.filled(map).unwrap_or(self.default)
    }
}

impl Annotation<Option<&'static str>> {
    pub fn read<'a>(&self, map: &'a Map) -> Option<&'a str> {
        self.text(map).or(self.default)
    }

    /// For values that cannot be empty: such an annotation counts as absent.
    pub fn read_filled<'a>(&self, map: &'a Map) -> Option<&'a str> {
        self.filled(map).or(self.default)
    }
}

fn integer<T>(annotation: &Annotation<T>, text: &str) -> Result<i64, Error> {
    text.parse()
        .map_err(|_| annotation.error("an integer", text))
}

macro_rules! annotations {
    ($($(#[$doc:meta])* $constant:ident: $type:ty = $name:literal, $default:expr;)*) => {
        $($(#[$doc])* pub const $constant: Annotation<$type> = Annotation {
            name: concat!("dapr.io/", $name),
            default: $default,
        };)*

        /// The names of all annotations above.
        pub const NAMES: &[&str] = &[$($constant.name),*];
    };
}

annotations! {
    ENABLED: bool = "enabled", false;
    /// The pod's name unless given.
    APP_ID: Option<&'static str> = "app-id", None;
    APP_PORT: i64 = "app-port", 0;
    APP_PROTOCOL: &'static str = "app-protocol", "http";
    APP_SSL: bool = "app-ssl", false;
    APP_CHANNEL_ADDRESS: &'static str = "app-channel-address", "";
    APP_MAX_CONCURRENCY: Option<i64> = "app-max-concurrency", None;
    CONFIG: &'static str = "config", "";
    LOG_LEVEL: &'static str = "log-level", "info";
    LOG_AS_JSON: bool = "log-as-json", false;
    ENABLE_API_LOGGING: Option<bool> = "enable-api-logging", None;
    ENABLE_PROFILING: bool = "enable-profiling", false;
    ENABLE_METRICS: bool = "enable-metrics", true;
    METRICS_PORT: i64 = "metrics-port", 9090;
    ENABLE_DEBUG: bool = "enable-debug", false;
    DEBUG_PORT: i64 = "debug-port", 40000;
    ENV: &'static str = "env", "";
    ENV_FROM_SECRET: &'static str = "env-from-secret", "";
    GRPC_PORT: i64 = "grpc-port", 50001;
    INTERNAL_GRPC_PORT: i64 = "internal-grpc-port", 50002;
    LISTEN_ADDRESSES: &'static str = "sidecar-listen-addresses", "[::1],127.0.0.1";
    CPU_REQUEST: Option<&'static str> = "sidecar-cpu-request", None;
    CPU_LIMIT: Option<&'static str> = "sidecar-cpu-limit", None;
    MEMORY_REQUEST: Option<&'static str> = "sidecar-memory-request", None;
    MEMORY_LIMIT: Option<&'static str> = "sidecar-memory-limit", None;
    LIVENESS_DELAY_SECONDS: i64 = "sidecar-liveness-probe-delay-seconds", 180;
    LIVENESS_TIMEOUT_SECONDS: i64 = "sidecar-liveness-probe-timeout-seconds", 3;
    LIVENESS_PERIOD_SECONDS: i64 = "sidecar-liveness-probe-period-seconds", 10;
    LIVENESS_THRESHOLD: i64 = "sidecar-liveness-probe-threshold", 5;
    READINESS_DELAY_SECONDS: i64 = "sidecar-readiness-probe-delay-seconds", 1;
    READINESS_TIMEOUT_SECONDS: i64 = "sidecar-readiness-probe-timeout-seconds", 1;
    READINESS_PERIOD_SECONDS: i64 = "sidecar-readiness-probe-period-seconds", 1;
    READINESS_THRESHOLD: i64 = "sidecar-readiness-probe-threshold", 5;
    IMAGE: Option<&'static str> = "sidecar-image", None;
    SECCOMP_PROFILE_TYPE: Option<&'static str> = "sidecar-seccomp-profile-type", None;
    /// In megabytes; the older form of `max-body-size`.
    HTTP_MAX_REQUEST_SIZE: Option<i64> = "http-max-request-size", None;
    MAX_BODY_SIZE: &'static str = "max-body-size", "";
    /// In kilobytes; the older form of `read-buffer-size`.
    HTTP_READ_BUFFER_SIZE: Option<i64> = "http-read-buffer-size", None;
    READ_BUFFER_SIZE: &'static str = "read-buffer-size", "";
    GRACEFUL_SHUTDOWN_SECONDS: i64 = "graceful-shutdown-seconds", -1;
    BLOCK_SHUTDOWN_DURATION: Option<&'static str> = "block-shutdown-duration", None;
    UNIX_DOMAIN_SOCKET_PATH: &'static str = "unix-domain-socket-path", "";
    VOLUME_MOUNTS: &'static str = "volume-mounts", "";
    VOLUME_MOUNTS_RW: &'static str = "volume-mounts-rw", "";
    DISABLE_BUILTIN_K8S_SECRET_STORE: bool = "disable-builtin-k8s-secret-store", false;
    ENABLE_APP_HEALTH_CHECK: bool = "enable-app-health-check", false;
    APP_HEALTH_CHECK_PATH: &'static str = "app-health-check-path", "/healthz";
    /// In seconds.
    APP_HEALTH_PROBE_INTERVAL: i64 = "app-health-probe-interval", 5;
    /// In milliseconds.
    APP_HEALTH_PROBE_TIMEOUT: i64 = "app-health-probe-timeout", 500;
    APP_HEALTH_THRESHOLD: i64 = "app-health-threshold", 3;
    APP_BINDING_OPTIONS_TIMEOUT: Option<&'static str> = "app-binding-options-timeout", None;
    /// The injector's own address unless given.
    PLACEMENT_HOST_ADDRESS: Option<&'static str> = "placement-host-address", None;
    /// The injector's own address unless given.
    SCHEDULER_HOST_ADDRESS: Option<&'static str> = "scheduler-host-address", None;
    ACTORS_DISSEMINATE_TIMEOUT: Option<&'static str> = "actors-disseminate-timeout", None;
    API_TOKEN_SECRET: &'static str = "api-token-secret", "";
    APP_TOKEN_SECRET: &'static str = "app-token-secret", "";
    PLUGGABLE_COMPONENTS: &'static str = "pluggable-components", "";
    /// The injector's own folder unless given.
    PLUGGABLE_COMPONENTS_SOCKETS_FOLDER: Option<&'static str> = "pluggable-components-sockets-folder", None;
    INJECT_PLUGGABLE_COMPONENTS: bool = "inject-pluggable-components", false;
    /// On a Component: the container that serves it, as JSON.
    COMPONENT_CONTAINER: Option<&'static str> = "component-container", None;
    SENTRY_REQUEST_JWT_AUDIENCES: &'static str = "sentry-request-jwt-audiences", "";
    /// Read by the operator only.
    SIDECAR_SERVICE_ANNOTATIONS: &'static str = "sidecar-svc-annotations", "";
    DISABLE_INIT_ENDPOINTS: Option<&'static str> = "disable-init-endpoints", None;
    /// The injector's own choice unless given.
    ENABLE_NATIVE_SIDECAR: Option<bool> = "enable-native-sidecar", None;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(name: &str, value: &str) -> Map {
        [(name.to_owned(), value.to_owned())].into()
    }

    #[test]
    fn values_are_trimmed_and_empty_ones_are_the_default() {
        assert_eq!(GRPC_PORT.read(&Map::new()), Ok(50001));
        assert_eq!(GRPC_PORT.read(&map("dapr.io/grpc-port", "-7")), Ok(-7));
        let error = |value: &str| {
            let read = GRPC_PORT.read(&map("dapr.io/grpc-port", value));
            read.unwrap_err().to_string()
        };
        assert_eq!(
            error("7 7"),
            r#"annotation dapr.io/grpc-port must be an integer, not "7 7""#
        );
        assert!(error(&"x".repeat(1 << 18)).len() < 200);
        for empty in ["", " "] {
            assert_eq!(GRPC_PORT.read(&map("dapr.io/grpc-port", empty)), Ok(50001));
            let limit = map("dapr.io/app-max-concurrency", empty);
            assert_eq!(APP_MAX_CONCURRENCY.read(&limit), Ok(None));
            let image = map("dapr.io/sidecar-image", empty);
            assert_eq!(IMAGE.read_filled(&image), None);
        }
        assert_eq!(GRPC_PORT.read(&map("dapr.io/grpc-port", " 7 ")), Ok(7));
        assert_eq!(CONFIG.read(&map("dapr.io/config", " c ")), "c");
        assert_eq!(LOG_LEVEL.read(&map("dapr.io/log-level", "")), "");
        assert!(!ENABLE_METRICS.read(&map("dapr.io/enable-metrics", "")));
        assert_eq!(
            ENABLE_API_LOGGING.read(&map("dapr.io/enable-api-logging", "x")),
            Some(false)
        );
        assert_eq!(APP_MAX_CONCURRENCY.read(&Map::new()), Ok(None));
    }

    #[test]
    fn names_are_unique() {
        let mut names = NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NAMES.len());
    }
}
