//! The flags of `daprd`, their defaults and their help.

use clap::{Arg, ArgAction, Command, builder::BoolishValueParser};

pub fn command() -> Command {
    let text = |name: &'static str, default: &'static str| {
        Arg::new(name)
            .long(name)
            .default_value(default)
            .action(ArgAction::Set)
    };
    let list = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Append);
    let switch = |name: &'static str| {
        Arg::new(name)
            .long(name)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(BoolishValueParser::new())
            .action(ArgAction::Set)
    };
    Command::new("daprd")
        .disable_version_flag(true)
        .disable_help_flag(true)
        .args_override_self(true)
        .args([
            text("mode", "standalone").help("standalone or kubernetes"),
            text("app-id", "").help("Id of the application, by which others find it"),
            text("app-port", "").help("Port that the application listens on"),
            text("app-protocol", "http").help("http, https, h2c, grpc or grpcs"),
            switch("app-ssl").help("Deprecated: use --app-protocol https or grpcs"),
            text("app-channel-address", "127.0.0.1")
                .help("Address that the application listens on"),
            text("app-max-concurrency", "-1")
                .allow_negative_numbers(true)
                .help("Calls into the application at once; -1 for any number"),
            text("dapr-http-port", "3500").help("Port of the HTTP API"),
            text("dapr-grpc-port", "50001").help("Port of the gRPC API"),
            text("dapr-listen-addresses", "")
                .help("Addresses of the APIs, separated by commas; empty for all"),
            text("dapr-public-port", "").help("Port with nothing but health and metadata"),
            text("dapr-public-listen-address", "").help("Its address"),
            text("dapr-internal-grpc-port", "")
                .help("Port for other sidecars; computed when absent"),
            text("dapr-internal-grpc-listen-address", "").help("Its address"),
            switch("enable-profiling").help("Serve profiles for pprof"),
            text("profile-port", "7777").help("Port of the profiles"),
            switch("enable-metrics")
                .default_value("true")
                .help("Serve metrics"),
            text("metrics-port", "9090").help("Port of the metrics"),
            text("metrics-listen-address", "0.0.0.0").help("Address of the metrics"),
            list("config")
                .help("Configuration files, or the name of a Configuration in Kubernetes"),
            list("resources-path").help("Folders of resource files"),
            text("components-path", "").help("Deprecated: use --resources-path"),
            text("control-plane-address", "").help("Address of the operator"),
            Arg::new("control-plane-namespace")
                .long("control-plane-namespace")
                .help("Namespace of the control plane"),
            Arg::new("control-plane-trust-domain")
                .long("control-plane-trust-domain")
                .help("Trust domain of the control plane"),
            text("sentry-address", "").help("Address of the certificate authority"),
            list("sentry-request-jwt-audiences").help("Audiences asked for in the signing request"),
            switch("enable-mtls").help("Mutual TLS between sidecars"),
            text("placement-host-address", "").help("Addresses of the placement service"),
            list("scheduler-host-address").help("Addresses of the scheduler"),
            text("scheduler-job-streams", "3").help("Streams to the scheduler"),
            text("actors-disseminate-timeout", "30s").help("Limit for a round of actor placement"),
            text("actors-placement-startup-timeout", "30s")
                .help("How long to wait for a scheduler before the placement service is used"),
            text("actors-service", "").hide(true),
            text("reminders-service", "").hide(true),
            text("allowed-origins", "").help("CORS: origins, separated by commas, or *"),
            Arg::new("max-body-size")
                .long("max-body-size")
                .allow_negative_numbers(true)
                .help("Limit of a request body, such as 4Mi [default: 4Mi]"),
            Arg::new("dapr-http-max-request-size")
                .long("dapr-http-max-request-size")
                .allow_negative_numbers(true)
                .help("Deprecated: use --max-body-size"),
            Arg::new("read-buffer-size")
                .long("read-buffer-size")
                .allow_negative_numbers(true)
                .help("Limit of request headers, such as 4Ki [default: 4Ki]"),
            Arg::new("dapr-http-read-buffer-size")
                .long("dapr-http-read-buffer-size")
                .allow_negative_numbers(true)
                .help("Deprecated: use --read-buffer-size"),
            text("unix-domain-socket", "")
                .help("Folder for sockets that replace the ports of the APIs"),
            text("dapr-graceful-shutdown-seconds", "5")
                .allow_negative_numbers(true)
                .help("Time to end in; 0 for any"),
            Arg::new("dapr-block-shutdown-duration")
                .long("dapr-block-shutdown-duration")
                .help("Go on serving this long after the signal"),
            switch("enable-api-logging").help("Log API calls"),
            switch("disable-builtin-k8s-secret-store")
                .help("Do not create the secret store named kubernetes"),
            switch("enable-app-health-check").help("Probe the application"),
            text("app-health-check-path", "/healthz").help("Path of the probes"),
            text("app-health-probe-interval", "5")
                .allow_negative_numbers(true)
                .help("Seconds between probes"),
            text("app-health-probe-timeout", "500")
                .allow_negative_numbers(true)
                .help("Milliseconds for a probe"),
            text("app-health-threshold", "3")
                .allow_negative_numbers(true)
                .help("Failures until the application counts as unhealthy"),
            text("app-binding-options-timeout", "3s")
                .help("Limit for asking the application about input bindings"),
            text("hot-reload-reconcile-interval", "0s")
                .help("Time between full comparisons of resources"),
            list("disable-init-endpoints").help(
                "Endpoints of the application that are not asked at start: config, subscribe",
            ),
            text("log-level", "info").help("debug, info, warn, error or fatal"),
            switch("log-as-json").help("Log lines as JSON"),
            text("log-file", "").help("Append log lines to this file"),
            list("log-outputs").help("Further outputs of the log: stdout, stderr, paths"),
            text("log-file-max-size", "0")
                .help("MiB of a log file until the next one begins; 0 for any"),
            text("log-file-max-backups", "0").help("Full log files that are kept; 0 for any"),
            text("log-file-max-age", "0").help("Days that full log files are kept; 0 for ever"),
            switch("log-file-compression").help("Compress full log files"),
            text("log-timestamp-format", "").help("How times of log lines look, in Go's form"),
            switch("version").help("Print the version"),
            switch("build-info").help("Print the build"),
            switch("wait").help("Wait until a running sidecar is ready for outbound calls"),
            Arg::new("help")
                .long("help")
                .short('h')
                .action(ArgAction::SetTrue)
                .help("Print this"),
            Arg::new("rest")
                .num_args(0..)
                .hide(true)
                .trailing_var_arg(false),
        ])
}
