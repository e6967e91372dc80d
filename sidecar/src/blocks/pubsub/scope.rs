//! Which topics the application may publish and subscribe to.
//! <https://docs.dapr.io/developing-applications/building-blocks/pubsub/pubsub-scopes/>

use outrider_components::Metadata;

/// The rules of one component, for one application.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Scopes {
    /// Empty allows all.
    allowed: Vec<String>,
    /// Topics that only the applications named in the scopes may use.
    protected: Vec<String>,
    /// None if the application is not named.
    publishing: Option<Vec<String>>,
    subscribing: Option<Vec<String>>,
}

impl Scopes {
    pub fn new(metadata: &Metadata, app_id: &str) -> Self {
        let text = |name: &str| {
            let text = metadata.get(name).unwrap_or_default();
            text.chars().filter(|c| *c != ' ').collect::<String>()
        };
        Self {
            allowed: list(&text("allowedTopics")),
            protected: list(&text("protectedTopics")),
            publishing: of_app(&text("publishingScopes"), app_id),
            subscribing: of_app(&text("subscriptionScopes"), app_id),
        }
    }

    pub fn may_publish(&self, topic: &str) -> bool {
        self.may(topic, self.publishing.as_deref())
    }

    pub fn may_subscribe(&self, topic: &str) -> bool {
        self.may(topic, self.subscribing.as_deref())
    }

    fn may(&self, topic: &str, named: Option<&[String]>) -> bool {
        let has = |list: &[String]| list.iter().any(|t| t == topic);
        if !self.allowed.is_empty() && !has(&self.allowed) {
            return false;
        }
        match named {
            Some(named) => has(named),
            None => !has(&self.protected),
        }
    }
}

fn list(text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    text.split(',').map(str::to_owned).collect()
}

/// The topics of `app1=t1,t2;app2=t3` that belong to one application. Named
/// without topics, it has none.
fn of_app(text: &str, app_id: &str) -> Option<Vec<String>> {
    let mut topics: Option<Vec<String>> = None;
    for (app, named) in text.split(';').filter_map(|scope| scope.split_once('=')) {
        if app == app_id {
            topics.get_or_insert_default().extend(list(named));
        }
    }
    topics
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scopes(pairs: &[(&str, &str)]) -> Scopes {
        Scopes::new(&Metadata::new("p", pairs.iter().copied()), "app")
    }

    #[test]
    fn rules() {
        let all = scopes(&[]);
        assert!(all.may_publish("a") && all.may_subscribe("a"));
        let listed = scopes(&[("AllowedTopics", "a, b")]);
        assert!(listed.may_publish("b") && !listed.may_publish("c"));
        let named = scopes(&[("publishingScopes", "zoo=x; app = a,b;app=c")]);
        assert!(named.may_publish("a") && named.may_publish("c") && !named.may_publish("x"));
        assert!(named.may_subscribe("x"));
        let none = scopes(&[("subscriptionScopes", "app=")]);
        assert!(!none.may_subscribe("a") && none.may_publish("a"));
        let others = scopes(&[("publishingScopes", "zoo=x")]);
        assert!(others.may_publish("anything"));
        let protected = scopes(&[("protectedTopics", "p"), ("publishingScopes", "app=p")]);
        assert!(protected.may_publish("p") && !protected.may_publish("q"));
        assert!(!protected.may_subscribe("p") && protected.may_subscribe("q"));
    }

    proptest! {
        #[test]
        fn prop_an_allow_list_only_takes_away(
            topic in "[a-d]", allowed in "([a-d],){0,2}[a-d]", protected in "[a-d]?", scope in "(app|zoo)=([a-d](,[a-d])?)?",
        ) {
            let rest = [("protectedTopics", protected.as_str()), ("publishingScopes", scope.as_str())];
            let wide = scopes(&rest).may_publish(&topic);
            let narrow = scopes(&[rest[0], rest[1], ("allowedTopics", allowed.as_str())]).may_publish(&topic);
            prop_assert!(!narrow || wide);
            prop_assert!(!narrow || allowed.split(',').any(|a| a == topic));
        }
    }
}
