//! What a source wants of one kind, and how that differs from what is in use.

use outrider_crds::Kind;

use super::kind::Watch;

/// What happened to a resource.
pub enum Change<R> {
    Set(R),
    Deleted(R),
}

/// What a source says.
pub enum Wanted<W: Watch> {
    /// These, and no others.
    All(Vec<W::Resource>),
    /// The same as before, but for one.
    Changed(Change<W::Resource>),
}

impl<W: Watch> Wanted<W> {
    /// Takes it into the list of all that is wanted. Returns whether there may
    /// be anything new.
    pub fn amend(self, all: &mut Vec<W::Resource>) -> bool {
        let change = match self {
            Self::All(listed) => {
                *all = listed;
                return true;
            }
            Self::Changed(change) => change,
        };
        let before = all.len();
        let (Change::Set(changed) | Change::Deleted(changed)) = &change;
        let name = &changed.metadata().name;
        all.retain(|kept| kept.metadata().name != *name);
        match change {
            Change::Deleted(_) => all.len() != before,
            Change::Set(resource) => {
                all.push(resource);
                W::arrange(all);
                true
            }
        }
    }
}

/// How one resource differs.
#[derive(Debug, PartialEq)]
pub struct Difference<'a, R> {
    pub what: What,
    /// As it is wanted, or as it was where it is not wanted any more.
    pub resource: &'a R,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Created,
    Updated,
    Deleted,
}

impl What {
    /// As log lines have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Updated => "UPDATED",
            Self::Deleted => "DELETED",
        }
    }
}

/// What is different by name: first what is gone, then what is new or changed.
pub fn differences<'a, W: Watch>(
    in_use: &'a [W::Resource],
    wanted: &'a [W::Resource],
) -> Vec<Difference<'a, W::Resource>> {
    let find = |all: &'a [W::Resource], name: &str| {
        let mut all = all.iter();
        all.find(|resource| resource.metadata().name == name)
    };
    let gone = in_use.iter().filter_map(|resource| {
        let is_gone = find(wanted, &resource.metadata().name).is_none();
        is_gone.then_some((What::Deleted, resource))
    });
    let new = wanted
        .iter()
        .filter_map(|resource| match find(in_use, &resource.metadata().name) {
            None => Some((What::Created, resource)),
            Some(before) if !W::same(before, resource) => Some((What::Updated, resource)),
            Some(_) => None,
        });
    gone.chain(new)
        .map(|(what, resource)| Difference { what, resource })
        .collect()
}

#[cfg(test)]
mod tests {
    use outrider_crds::HttpEndpoint;

    use super::*;
    use crate::resources::http_endpoint::HttpEndpoints;

    fn endpoint(name: &str, base_url: &str, label: &str) -> HttpEndpoint {
        let mut endpoint = HttpEndpoint::default();
        endpoint.metadata.name = name.to_owned();
        endpoint.metadata.namespace = label.to_owned();
        endpoint.spec.base_url = base_url.to_owned();
        endpoint
    }

    #[test]
    fn differences_are_by_name_and_what_is_gone_comes_first() {
        let (a, b) = (endpoint("a", "http://a", ""), endpoint("b", "http://b", ""));
        let in_use = [a.clone(), b.clone()];
        let differences = |wanted: &[HttpEndpoint]| -> Vec<(What, String)> {
            differences::<HttpEndpoints>(&in_use, wanted)
                .iter()
                .map(|d| (d.what, d.resource.spec.base_url.clone()))
                .collect()
        };
        assert!(differences(&[b.clone(), endpoint("a", "http://a", "else")]).is_empty());
        let of = |what, url: &str| (what, url.to_owned());
        assert_eq!(
            differences(&[endpoint("c", "http://c", ""), endpoint("b", "http://d", "")]),
            [
                of(What::Deleted, "http://a"),
                of(What::Created, "http://c"),
                of(What::Updated, "http://d"),
            ]
        );
    }

    #[test]
    fn a_change_replaces_the_resource_of_its_name_and_a_foreign_deletion_is_nothing_new() {
        let mut all = vec![endpoint("a", "http://a", ""), endpoint("b", "http://b", "")];
        let urls = |all: &[HttpEndpoint]| -> Vec<String> {
            all.iter().map(|e| e.spec.base_url.clone()).collect()
        };
        let mut amend = |wanted: Wanted<HttpEndpoints>| (wanted.amend(&mut all), urls(&all));
        let strings = |urls: &[&str]| urls.iter().map(|&url| url.to_owned()).collect();
        let set = Change::Set(endpoint("a", "http://c", ""));
        assert_eq!(
            amend(Wanted::Changed(set)),
            (true, strings(&["http://b", "http://c"]))
        );
        let foreign = Change::Deleted(endpoint("z", "http://z", ""));
        assert_eq!(
            amend(Wanted::Changed(foreign)),
            (false, strings(&["http://b", "http://c"]))
        );
        let deleted = Change::Deleted(endpoint("b", "", ""));
        assert_eq!(
            amend(Wanted::Changed(deleted)),
            (true, strings(&["http://c"]))
        );
        assert_eq!(amend(Wanted::All(Vec::new())), (true, Vec::new()));
    }
}
