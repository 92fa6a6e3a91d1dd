//! Finds the user of an image, by Docker's rules, from the text of `/etc/passwd` and `/etc/group`.
//!
//! The C library's own lookups are not used: in a static program they would load the image's
//! libraries into this process.

/// Who the steps run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Further groups.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Resolves `user`, `user:group`, `uid` or `uid:gid`. A number needs no entry; a name does.
pub(crate) fn find(spec: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (name, group_name) = match spec.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (spec, None),
    };
    let entry = passwd.lines().map(fields).find(|entry| {
        entry.first() == Some(&name) || (entry.get(2) == Some(&name) && number(name).is_some())
    });
    let uid = match &entry {
        Some(entry) => entry.get(2).and_then(|uid| number(uid)),
        None => number(name),
    };
    let Some(uid) = uid else {
        return Err(format!("the image's user {name:?} is not in its /etc/passwd"));
    };
    let home = entry.as_ref().and_then(|entry| entry.get(5)).filter(|home| !home.is_empty());
    let home = (*home.unwrap_or(&"/")).to_owned();
    if let Some(wanted) = group_name {
        let entry = group.lines().map(fields).find(|entry| {
            entry.first() == Some(&wanted)
                || (entry.get(2) == Some(&wanted) && number(wanted).is_some())
        });
        let gid = match entry {
            Some(entry) => entry.get(2).and_then(|gid| number(gid)),
            None => number(wanted),
        };
        let Some(gid) = gid else {
            return Err(format!("the image's group {wanted:?} is not in its /etc/group"));
        };
        return Ok(User { uid, gid, groups: Vec::new(), home });
    }
    let gid = entry.as_ref().and_then(|entry| number(entry.get(3)?)).unwrap_or(0);
    let login = entry.as_ref().and_then(|entry| entry.first().copied()).unwrap_or(name);
    let groups = group
        .lines()
        .map(fields)
        .filter(|entry| entry.get(3).is_some_and(|members| members.split(',').any(|m| m == login)))
        .filter_map(|entry| number(entry.get(2)?))
        .collect();
    Ok(User { uid, gid, groups, home })
}

fn fields(line: &str) -> Vec<&str> {
    line.split(':').collect()
}

fn number(text: &str) -> Option<u32> {
    (text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\ndocker:x:998:root,app\n";

    fn user(uid: u32, gid: u32, groups: &[u32], home: &str) -> Result<User, String> {
        Ok(User { uid, gid, groups: groups.to_vec(), home: home.to_owned() })
    }

    #[test]
    fn a_name_brings_its_groups_and_home() {
        assert_eq!(find("app", PASSWD, GROUP), user(1000, 1001, &[998], "/home/app"));
        assert_eq!(find("1000", PASSWD, GROUP), user(1000, 1001, &[998], "/home/app"));
    }

    #[test]
    fn a_number_needs_no_entry() {
        assert_eq!(find("4242", PASSWD, GROUP), user(4242, 0, &[], "/"));
        assert_eq!(find("4242:77", "", ""), user(4242, 77, &[], "/"));
    }

    #[test]
    fn a_named_group_replaces_the_users_own() {
        assert_eq!(find("app:docker", PASSWD, GROUP), user(1000, 998, &[], "/home/app"));
    }

    #[test]
    fn an_unknown_name_is_said() {
        assert!(find("nobody", PASSWD, GROUP).unwrap_err().contains("nobody"));
        assert!(find("app:nogroup", PASSWD, GROUP).unwrap_err().contains("nogroup"));
        assert!(find("4294967296", PASSWD, GROUP).is_err());
    }
}
