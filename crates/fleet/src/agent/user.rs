//! As whom a script runs. Only an agent that runs as root can become another user.
//!
//! The change is made in a thread of its own: on Linux a thread has its own user and groups, a
//! process that it starts takes them over, and the thread ends right after. The agent itself stays
//! what it is.

use std::{io, path::PathBuf};

use nix::unistd::{Group, User, getgrouplist};
use rustix::{
    process::{Gid, Uid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use tokio::process::{Child, Command};

use crate::db::Abilities;

/// A user to become, with everything that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunAs {
    pub(super) name: String,
    pub(super) home: PathBuf,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl RunAs {
    /// What a session of this user has in its environment.
    pub(super) fn environment(&self) -> [(&'static str, std::ffi::OsString); 3] {
        let name = std::ffi::OsString::from(&self.name);
        [("HOME", self.home.clone().into()), ("USER", name.clone()), ("LOGNAME", name)]
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn own_name() -> String {
    let uid = rustix::process::geteuid().as_raw();
    let known = User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten();
    known.map_or_else(|| uid.to_string(), |user| user.name)
}

fn find(name: &str) -> Result<User, String> {
    User::from_name(name)
        .map_err(|error| format!("the user {name} can't be looked up: {error}"))?
        .ok_or_else(|| format!("this host has no user {name}"))
}

/// The id of a user.
pub(super) fn uid(name: &str) -> Result<u32, String> {
    Ok(find(name)?.uid.as_raw())
}

/// The id of a group.
pub(super) fn gid(name: &str) -> Result<u32, String> {
    Group::from_name(name)
        .map_err(|error| format!("the group {name} can't be looked up: {error}"))?
        .map(|group| group.gid.as_raw())
        .ok_or_else(|| format!("this host has no group {name}"))
}

/// Whom to become for a script that names `wanted`; none to stay.
pub(super) fn resolve(wanted: Option<&str>) -> Result<Option<RunAs>, String> {
    let Some(name) = wanted else { return Ok(None) };
    let user = find(name)?;
    if user.uid.as_raw() == rustix::process::geteuid().as_raw() {
        return Ok(None);
    }
    if !is_root() {
        return Err(format!(
            "this agent runs as {} and can't become {name}: run it as root",
            own_name()
        ));
    }
    let c_name = std::ffi::CString::new(name).map_err(|error| error.to_string())?;
    let groups = getgrouplist(&c_name, user.gid)
        .map_err(|error| format!("the groups of {name} can't be looked up: {error}"))?;
    Ok(Some(RunAs {
        name: user.name,
        home: user.dir,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
    }))
}

/// Whether the configured user of hooks can be had.
///
/// # Errors
/// When it can't.
pub(super) fn check_default(user: Option<&str>) -> anyhow::Result<()> {
    resolve(user).map(drop).map_err(|error| anyhow::anyhow!("hooks_as: {error}"))
}

/// Starts a command, as another user if one is given.
pub(super) fn spawn(command: &mut Command, user: Option<&RunAs>) -> io::Result<Child> {
    let Some(user) = user else { return command.spawn() };
    let runtime = tokio::runtime::Handle::current();
    let started = std::thread::scope(|scope| {
        let start = || {
            let _inside = runtime.enter();
            let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
            let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
            // Groups first: once the user is another, they can't be changed any more.
            set_thread_groups(&groups)?;
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)?;
            command.spawn()
        };
        scope.spawn(start).join()
    });
    started.unwrap_or_else(|_| Err(io::Error::other("the thread that starts the script ended")))
}

/// What this agent can do, for the fleet: it refuses a deployment that wants more before it touches
/// anything.
pub(crate) fn abilities() -> Abilities {
    let names = |path: &str| -> Option<Vec<String>> {
        let text = std::fs::read_to_string(path).ok()?;
        let name = |line: &str| line.split(':').next().unwrap_or_default().trim().to_owned();
        Some(text.lines().map(name).filter(|name| !name.is_empty()).collect())
    };
    let (users, groups) = (names("/etc/passwd"), names("/etc/group"));
    let sources = std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    Abilities {
        root: is_root(),
        user: own_name(),
        all_listed: users.is_some() && groups.is_some() && only_files(&sources),
        users: users.unwrap_or_default(),
        groups: groups.unwrap_or_default(),
    }
}

/// Whether users and groups come from `/etc` alone.
fn only_files(nsswitch: &str) -> bool {
    nsswitch.lines().filter_map(|line| line.split_once(':')).all(|(of, sources)| {
        !matches!(of.trim(), "passwd" | "group" | "initgroups")
            || sources.split('#').next().unwrap_or_default().split_whitespace().all(|source| {
                matches!(source, "files" | "compat" | "systemd") || source.starts_with('[')
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_service_knows_more_users_than_the_files() {
        assert!(only_files(""));
        assert!(only_files(
            "passwd: files systemd\ngroup: files [SUCCESS=merge] systemd\nhosts: dns\n"
        ));
        assert!(!only_files("passwd: files sss\n"));
        assert!(!only_files("group: files ldap # all of them\n"));
    }

    #[test]
    fn a_user_that_is_not_there_is_named() {
        assert!(resolve(Some("no-such-user")).unwrap_err().contains("no-such-user"));
        assert_eq!(resolve(None), Ok(None));
        assert_eq!(resolve(Some(&own_name())), Ok(None));
        let abilities = abilities();
        assert!(abilities.users.contains(&abilities.user), "{abilities:?}");
    }
}
