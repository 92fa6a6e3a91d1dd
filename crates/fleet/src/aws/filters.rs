//! Which hosts a deployment group has: filters on the hosts' tags.
//!
//! `onPremisesInstanceTagFilters` is one group of filters, of which one must match;
//! `onPremisesTagSet` is several groups, of which each must match. A call names one of the two, and
//! what it names takes the place of the other.

use serde_json::Value;

use super::AwsError;
use crate::deployment::TagFilter;

/// One group of filters.
pub(super) const FLAT: &str = "onPremisesInstanceTagFilters";
/// Groups of filters.
pub(super) const SET: &str = "onPremisesTagSet";
/// CodeDeploy's own limits.
const MAX_GROUPS: usize = 3;
const MAX_FILTERS: usize = 10;

/// The groups that an input or a kept group names: one filter of each group must match. No groups
/// are no hosts.
pub(super) fn groups(doc: &Value) -> Result<Vec<Vec<TagFilter>>, AwsError> {
    let flat = read(&doc[FLAT])?.map(|flat| vec![flat]).unwrap_or_default();
    let mut set: Vec<Vec<TagFilter>> = read(&doc[SET]["onPremisesTagSetList"])?.unwrap_or_default();
    let given = |groups: &[Vec<TagFilter>]| groups.iter().any(|group| !group.is_empty());
    if given(&flat) && given(&set) {
        return Err(AwsError::new(
            "InvalidOnPremisesTagCombinationException",
            format!("only one of {FLAT} and {SET} may be given"),
        ));
    }
    if set.len() > MAX_GROUPS {
        return Err(AwsError::new(
            "TagSetListLimitExceededException",
            format!("{SET} takes at most {MAX_GROUPS} groups of tags, not {}", set.len()),
        ));
    }
    set.extend(flat);
    set.retain(|group| !group.is_empty());
    for filter in set.iter().flatten() {
        check(filter)?;
    }
    if let Some(group) = set.iter().find(|group| group.len() > MAX_FILTERS) {
        return Err(invalid(&format!(
            "a group of tags takes at most {MAX_FILTERS} filters, not {}",
            group.len()
        )));
    }
    Ok(set)
}

/// Whether a host's tags satisfy every group of filters. No filters match no host.
pub(crate) fn matches_all(groups: &[Vec<TagFilter>], tags: &[(String, String)]) -> bool {
    !groups.is_empty() && groups.iter().all(|group| group.iter().any(|filter| filter.matches(tags)))
}

fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Result<Option<T>, AwsError> {
    serde_json::from_value(value.clone()).map_err(|error| invalid(&error.to_string()))
}

/// A filter that could never match is a mistake.
fn check(filter: &TagFilter) -> Result<(), AwsError> {
    let (key, value) = (filter.key.is_some(), filter.value.is_some());
    match (filter.kind.as_str(), key, value) {
        ("KEY_AND_VALUE", true, true) | ("KEY_ONLY", true, _) | ("VALUE_ONLY", _, true) => Ok(()),
        ("KEY_AND_VALUE" | "KEY_ONLY" | "VALUE_ONLY", ..) => {
            Err(invalid(&format!("a filter of type {} needs what it names", filter.kind)))
        }
        (other, ..) => Err(invalid(&format!(
            "{other} is not a type of filter: KEY_AND_VALUE, KEY_ONLY or VALUE_ONLY"
        ))),
    }
}

fn invalid(text: &str) -> AwsError {
    AwsError::new("InvalidTagException", text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filter(key: &str, value: &str) -> Value {
        json!({"Key": key, "Value": value, "Type": "KEY_AND_VALUE"})
    }

    fn hosts(doc: &Value, tags: &[(&str, &str)]) -> bool {
        let tags: Vec<_> = tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        matches_all(&groups(doc).unwrap(), &tags)
    }

    #[test]
    fn one_of_the_flat_filters_is_enough_and_each_group_of_a_set_must_match() {
        let flat = json!({FLAT: [filter("role", "worker"), filter("zone", "a")]});
        assert!(hosts(&flat, &[("role", "worker")]));
        assert!(hosts(&flat, &[("zone", "a"), ("role", "db")]));
        assert!(!hosts(&flat, &[("zone", "b")]));

        let set = json!({SET: {"onPremisesTagSetList":
            [[filter("role", "worker")], [filter("zone", "a"), filter("zone", "b")]]}});
        assert!(!hosts(&set, &[("role", "worker")]));
        assert!(hosts(&set, &[("role", "worker"), ("zone", "b")]));
        assert!(!hosts(&set, &[("role", "worker"), ("zone", "c")]));
    }

    #[test]
    fn no_filters_are_no_hosts() {
        for doc in [json!({}), json!({FLAT: []}), json!({SET: {"onPremisesTagSetList": [[]]}})] {
            assert!(!hosts(&doc, &[("role", "worker")]), "{doc}");
        }
    }

    #[test]
    fn what_could_not_match_or_is_too_much_is_refused() {
        let one = [filter("role", "worker")];
        for (doc, code) in [
            (
                json!({FLAT: one, SET: {"onPremisesTagSetList": [one]}}),
                "InvalidOnPremisesTagCombinationException",
            ),
            (
                json!({SET: {"onPremisesTagSetList": [one, one, one, one]}}),
                "TagSetListLimitExceededException",
            ),
            (json!({FLAT: [{"Key": "role"}]}), "InvalidTagException"),
            (json!({FLAT: [{"Key": "role", "Type": "ODD"}]}), "InvalidTagException"),
            (json!({FLAT: vec![filter("role", "worker"); 11]}), "InvalidTagException"),
            (json!({FLAT: "role"}), "InvalidTagException"),
        ] {
            assert_eq!(groups(&doc).unwrap_err().code, code, "{doc}");
        }
    }
}
