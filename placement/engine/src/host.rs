/// What a sidecar reports of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    /// Address of the sidecar's internal gRPC API, `host:port`.
    pub name: String,
    pub app_id: String,
    pub namespace: String,
    /// Sorted, each once.
    pub actor_types: Vec<String>,
    pub api_level: u32,
}

impl Host {
    pub fn new(name: String, app_id: String, namespace: String, types: Vec<String>) -> Self {
        let mut actor_types = types;
        actor_types.sort_unstable();
        actor_types.dedup();
        Self {
            name,
            app_id,
            namespace,
            actor_types,
            api_level: 0,
        }
    }

    pub fn is_actor_host(&self) -> bool {
        !self.actor_types.is_empty()
    }
}
