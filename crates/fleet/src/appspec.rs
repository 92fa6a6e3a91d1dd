//! `appspec.yml` of a bundle, for hosts: version 0.0, Linux.
//!
//! The fleet reads it when a deployment is asked for, the agent once more before it does anything: what
//! can't be done is refused then, not when it is come to. That is another system, a timeout of
//! nothing, ACLs and contexts for everybody, and users for a host that can't become them
//! ([`AppSpec::unmet`]).

use std::{collections::BTreeMap, ffi::OsStr, io::Read as _, path::Path, time::Duration};

use serde::Deserialize;

use crate::{beneath::Folder, db::Abilities};

/// A parsed AppSpec.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AppSpec {
    pub(crate) files: Vec<FileSpec>,
    pub(crate) permissions: Vec<Permission>,
    /// Scripts by event, in order.
    pub(crate) hooks: BTreeMap<String, Vec<Hook>>,
}

/// Copies a file or a folder of the bundle to a folder of the release.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileSpec {
    pub(crate) source: String,
    pub(crate) destination: String,
}

/// Sets mode, owner and group of what was installed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Permission {
    pub(crate) object: String,
    #[serde(default = "all")]
    pub(crate) pattern: String,
    #[serde(default)]
    pub(crate) except: Vec<String>,
    pub(crate) mode: Option<String>,
    #[serde(default, rename = "type")]
    pub(crate) kinds: Vec<String>,
    pub(crate) owner: Option<String>,
    pub(crate) group: Option<String>,
    acls: Option<serde_json::Value>,
    context: Option<serde_json::Value>,
}

impl Permission {
    /// The mode as Unix has it: `755`, `0755` and `"0755"` are the same.
    pub(crate) fn mode_bits(&self) -> Option<Result<u32, String>> {
        let text = self.mode.as_ref()?;
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o7777);
        Some(bits.ok_or_else(|| format!("the mode {text} isn't 1 to 4 octal digits")))
    }
}

fn all() -> String {
    "**".into()
}

/// A script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hook {
    pub(crate) location: String,
    /// As whom; none for whoever the agent's settings say.
    pub(crate) user: Option<String>,
    pub(crate) timeout: Duration,
}

#[derive(Deserialize)]
struct Raw {
    version: serde_json::Value,
    os: String,
    #[serde(default)]
    files: Option<Vec<FileSpec>>,
    #[serde(default)]
    permissions: Option<Vec<Permission>>,
    #[serde(default)]
    hooks: Option<BTreeMap<String, Option<Vec<RawHook>>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHook {
    location: String,
    timeout: Option<u64>,
    runas: Option<String>,
    sudo: Option<bool>,
}

/// Events that may have scripts.
const SCRIPTED: [&str; 5] =
    ["ApplicationStop", "BeforeInstall", "AfterInstall", "ApplicationStart", "ValidateService"];
/// Scripts of one event together, and one script that names no timeout.
pub(crate) const EVENT_LIMIT: u64 = 3_600;
/// Names of the file, the first that is there counts.
pub(crate) const NAMES: [&str; 2] = ["appspec.yml", "appspec.yaml"];
/// The largest one.
pub(crate) const MAX_BYTES: u64 = 256 << 10;

impl AppSpec {
    /// Reads `appspec.yml` (or `appspec.yaml`) in an unpacked bundle. A link isn't followed: the fleet
    /// has checked the file of this name.
    pub(crate) fn read(bundle: &Path) -> Result<Self, String> {
        let folder = Folder::open(bundle).map_err(|error| error.to_string())?;
        let file = NAMES.iter().find_map(|name| folder.read(OsStr::new(name)).ok());
        let mut bytes = Vec::new();
        file.ok_or(MISSING)?
            .take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| format!("appspec.yml: {error}"))?;
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    /// Why a host with these abilities can't carry it out; none if it can.
    pub(crate) fn unmet(&self, host: &Abilities) -> Option<String> {
        for (event, hooks) in &self.hooks {
            for hook in hooks {
                let Some(user) = &hook.user else { continue };
                let wants = || format!("{} of {event} shall run as {user}", hook.location);
                if user != &host.user && !host.root {
                    return Some(format!(
                        "{}, but the agent runs as {} and can't become another user: run it as root",
                        wants(),
                        host.user
                    ));
                }
                if host.all_listed && user != &host.user && !host.users.contains(user) {
                    return Some(format!("{}, but there is no such user", wants()));
                }
            }
        }
        for permission in &self.permissions {
            let object = &permission.object;
            let owned = [(&permission.owner, &host.users), (&permission.group, &host.groups)];
            for (wanted, known) in owned {
                let Some(wanted) = wanted else { continue };
                if !host.root {
                    let user = &host.user;
                    return Some(format!(
                        "{object} shall belong to {wanted}, but the agent runs as {user}, not as root"
                    ));
                }
                if host.all_listed && !known.contains(wanted) {
                    return Some(format!(
                        "{object} shall belong to {wanted}, but there is no such name"
                    ));
                }
            }
        }
        None
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() as u64 > MAX_BYTES {
            return Err(format!("appspec.yml has more than {MAX_BYTES} bytes"));
        }
        let raw: Raw =
            serde_yaml::from_str(text).map_err(|error| format!("appspec.yml: {error}"))?;
        let version = match &raw.version {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        if version != "0.0" && version != "0" {
            return Err(format!("appspec.yml: version must be 0.0, it is {version}"));
        }
        if !raw.os.eq_ignore_ascii_case("linux") {
            return Err(format!("appspec.yml: os must be linux, it is {}", raw.os));
        }
        let mut hooks = BTreeMap::new();
        for (event, scripts) in raw.hooks.unwrap_or_default() {
            if !SCRIPTED.contains(&event.as_str()) {
                return Err(format!("appspec.yml: {event} isn't an event with scripts"));
            }
            let mut parsed = Vec::new();
            for script in scripts.unwrap_or_default() {
                parsed.push(hook(&event, script)?);
            }
            hooks.insert(event, parsed);
        }
        let permissions = raw.permissions.unwrap_or_default();
        for permission in &permissions {
            let object = &permission.object;
            if permission.acls.is_some() || permission.context.is_some() {
                return Err(format!("appspec.yml: acls and context of {object} aren't supported"));
            }
            for name in [&permission.owner, &permission.group].into_iter().flatten() {
                user_name(name).map_err(|text| format!("appspec.yml: {object}: {text}"))?;
            }
            let bad = permission.kinds.iter().find(|kind| *kind != "file" && *kind != "directory");
            if let Some(kind) = bad {
                return Err(format!(
                    "appspec.yml: type of {object} can be file or directory, not {kind}"
                ));
            }
            permission.mode_bits().transpose().map_err(|text| format!("appspec.yml: {text}"))?;
        }
        Ok(Self { files: raw.files.unwrap_or_default(), permissions, hooks })
    }
}

/// What there is instead of an AppSpec.
pub(crate) const MISSING: &str = "the bundle has no file appspec.yml at its top";

/// A name that a user or group can have.
fn user_name(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-@\\$+".contains(c);
    if (1..=64).contains(&name.len()) && !name.starts_with('-') && name.chars().all(legal) {
        return Ok(());
    }
    Err(format!("{name:?} isn't the name of a user or group"))
}

fn hook(event: &str, raw: RawHook) -> Result<Hook, String> {
    let location = raw.location;
    let at = |text: String| format!("appspec.yml: {location} of {event}: {text}");
    let sudo = raw.sudo.unwrap_or(false);
    let user = match raw.runas {
        Some(user) if sudo && user != "root" => {
            return Err(at(format!("sudo is root, but runas says {user}")));
        }
        Some(user) => {
            user_name(&user).map_err(at)?;
            Some(user)
        }
        None => sudo.then(|| "root".to_owned()),
    };
    let timeout = raw.timeout.unwrap_or(EVENT_LIMIT);
    if timeout == 0 || timeout > EVENT_LIMIT {
        return Err(format!(
            "appspec.yml: the timeout of {location} must be 1 to {EVENT_LIMIT} s, it is {timeout}"
        ));
    }
    Ok(Hook { location, user, timeout: Duration::from_secs(timeout) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
version: 0.0
os: linux
files:
  - source: /
    destination: /app
permissions:
  - object: /app
    pattern: '*.sh'
    mode: 755
    type: [file]
hooks:
  ApplicationStop:
    - location: scripts/stop.sh
      timeout: 10
      runas: root
  ApplicationStart:
    - location: scripts/start.sh
";

    #[test]
    fn an_appspec_is_read() {
        let spec = AppSpec::parse(GOOD).unwrap();
        assert_eq!(spec.files[0].destination, "/app");
        assert_eq!(spec.permissions[0].mode_bits(), Some(Ok(0o755)));
        assert_eq!(spec.hooks["ApplicationStop"][0].timeout, Duration::from_secs(10));
        assert_eq!(spec.hooks["ApplicationStart"][0].location, "scripts/start.sh");
        let short = AppSpec::parse("version: '0.0'\nos: linux\n").unwrap();
        assert!(short.files.is_empty() && short.hooks.is_empty());
    }

    #[test]
    fn what_no_agent_can_do_is_refused_by_name() {
        let refused = |from: &str, to: &str| {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD);
            AppSpec::parse(&text).unwrap_err()
        };
        assert!(refused("0.0", "1.0").contains("version"));
        assert!(refused("os: linux", "os: windows").contains("windows"));
        assert!(refused("runas: root", "runas: ''").contains("user"));
        assert!(refused("runas: root", "runas: 'a b'").contains("a b"));
        assert!(refused("runas: root", "runas: www\n      sudo: true").contains("sudo"));
        assert!(refused("timeout: 10", "timeout: 0").contains("stop.sh"));
        assert!(refused("timeout: 10", "timeout: 4000").contains("3600"));
        assert!(refused("ApplicationStart:", "Start:").contains("Start"));
        assert!(refused("mode: 755", "mode: 888").contains("888"));
        assert!(refused("type: [file]", "type: [link]").contains("link"));
    }

    #[test]
    fn a_user_or_owner_that_a_host_cannot_honour_is_named() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        let host = |user: &str, root: bool, all_listed: bool| Abilities {
            root,
            user: user.to_owned(),
            users: names(&["root", "deploy"]),
            groups: names(&["root", "www"]),
            all_listed,
        };
        let with = |to: &str| AppSpec::parse(&GOOD.replace("      runas: root\n", to)).unwrap();
        let nobody = with("");
        assert_eq!(nobody.unmet(&host("deploy", false, true)), None);
        let deploy = with("      runas: deploy\n");
        assert_eq!(deploy.unmet(&host("root", true, true)), None);
        assert_eq!(deploy.unmet(&host("deploy", false, true)), None);
        assert!(deploy.unmet(&host("ci", false, true)).unwrap().contains("deploy"));
        let sudo = with("      sudo: true\n");
        assert_eq!(sudo.unmet(&host("root", true, true)), None);
        assert!(sudo.unmet(&host("deploy", false, true)).unwrap().contains("root"));
        let stranger = with("      runas: ubuntu\n");
        assert!(stranger.unmet(&host("root", true, true)).unwrap().contains("ubuntu"));
        // A directory service may know it; the host itself finds out.
        assert_eq!(stranger.unmet(&host("root", true, false)), None);
        let owned = |who: &str| {
            let text = GOOD.replace("      runas: root\n", "");
            AppSpec::parse(&text.replace("    mode: 755\n", &format!("    mode: 755\n    {who}\n")))
                .unwrap()
        };
        assert_eq!(owned("group: www").unmet(&host("root", true, true)), None);
        assert!(owned("owner: www").unmet(&host("root", true, true)).unwrap().contains("www"));
        assert!(
            owned("owner: deploy").unmet(&host("deploy", false, true)).unwrap().contains("root")
        );
    }
}
