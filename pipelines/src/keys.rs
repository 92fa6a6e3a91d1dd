//! Every key of the language, in one table: the checker, its messages and the reference page all read
//! it.

/// A map of the language.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// Where it stands, `jobs.<name>`.
    pub path: &'static str,
    /// What it is, for messages: "a job".
    pub what: &'static str,
    /// Its keys in the order in which people write them.
    pub keys: &'static [Key],
}

/// A key of a map.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// Which values it takes, in words.
    pub form: &'static str,
    /// What holds without it.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// `${commit.…}` is filled into its text.
    pub filled: bool,
}

const fn key(
    name: &'static str,
    form: &'static str,
    default: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, form, default, doc, filled: false }
}

/// A key whose text takes `${commit.…}`: never one that is executed.
const fn filled(
    name: &'static str,
    form: &'static str,
    default: &'static str,
    doc: &'static str,
) -> Key {
    Key { name, form, default, doc, filled: true }
}

impl Section {
    /// The names of its keys.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name)
    }
}

/// All maps of the language, from the outside in.
pub const SECTIONS: &[Section] = &[TOP, WHEN, JOB, STEP, SERVICE, DEPLOY, DEPLOY_WHEN];

/// The file itself.
pub const TOP: Section = Section {
    path: "",
    what: "a pipeline file",
    keys: &[
        key(
            "when",
            "a map",
            "pushes to the default branch, and pull requests",
            "Which events start the pipeline.",
        ),
        key(
            "jobs",
            "a map from name to job",
            "required",
            "What runners execute. Jobs run beside each other unless one `needs` another.",
        ),
        key(
            "deploys",
            "a map from name to deploy",
            "none",
            "What is shipped where, and how. Deploys share one namespace with jobs.",
        ),
        key("x-…", "anything", "none", "A place for anchors; Pipeyard does not look inside."),
    ],
};

/// `when` of the file.
pub const WHEN: Section = Section {
    path: "when",
    what: "`when`",
    keys: &[
        key(
            "push",
            "a branch pattern, a list of them, or nothing for every branch",
            "no pushes, if `when` is there",
            "Pushes that start the pipeline. `*` stops at a slash, `**` does not.",
        ),
        key(
            "pull_request",
            "likewise, of the branch to be changed",
            "no pull requests, if `when` is there",
            "Pull requests that start the pipeline. They never deploy.",
        ),
    ],
};

/// A job.
pub const JOB: Section = Section {
    path: "jobs.<name>",
    what: "a job",
    keys: &[
        filled(
            "image",
            "a container image",
            "required",
            "Where the steps run. Its entrypoint is ignored; it needs `/bin/sh`.",
        ),
        key(
            "run",
            "a script, or a list of scripts and steps",
            "required",
            "What runs, by `/bin/sh -e`. Each item of a list is a step with an end and a log of its own.",
        ),
        key(
            "needs",
            "a name or a list of names",
            "none",
            "Jobs and deploys that must have succeeded before.",
        ),
        filled(
            "env",
            "a map of text",
            "none",
            "Environment of every step. The place for `${commit.…}`.",
        ),
        key(
            "secrets",
            "a name or a list of names",
            "none",
            "Secrets that the steps find in variables of the same names.",
        ),
        key(
            "services",
            "a list of images and services",
            "none",
            "Containers beside the job; steps reach them by host name once they are ready.",
        ),
        key("timeout", "a duration, `1s` to `24h`", "1h", "How long an attempt may take."),
        filled(
            "artifacts",
            "a path or a list of paths, with `*` and `**`",
            "none",
            "Files to keep when the job succeeds.",
        ),
        filled(
            "tests",
            "a path or a list of paths, with `*` and `**`",
            "none",
            "JUnit reports to read when the steps have ended, also when one failed.",
        ),
        key("retry", "0 to 10", "0", "How often a failed job is tried again by itself."),
        key(
            "once",
            "true or false",
            "false",
            "Never start it a second time by itself, not even when its runner is lost.",
        ),
        key(
            "labels",
            "a label or a list of labels",
            "none",
            "Labels that a runner must have to take it.",
        ),
    ],
};

/// An item of `run` that is a map.
pub const STEP: Section = Section {
    path: "jobs.<name>.run[]",
    what: "a step",
    keys: &[
        key("name", "text", "the script's first line", "What the log calls it."),
        key("run", "a script", "required", "What runs, by `/bin/sh -e`."),
        filled(
            "image",
            "a container image",
            "the job's",
            "An image of its own, on the same workspace.",
        ),
        filled("env", "a map of text", "none", "Environment besides the job's."),
        key("timeout", "a duration, `1s` to `24h`", "the job's", "How long this step may take."),
    ],
};

/// An item of `services` that is a map.
pub const SERVICE: Section = Section {
    path: "jobs.<name>.services[]",
    what: "a service",
    keys: &[
        filled("image", "a container image", "required", "What runs; its entrypoint is kept."),
        key(
            "alias",
            "a host name",
            "the last part of the image's path",
            "The host name under which steps reach it.",
        ),
        filled("env", "a map of text", "none", "Its environment."),
        key(
            "command",
            "words, or a list of words",
            "the image's",
            "Arguments in place of the image's own. Nothing is filled in, `${…}` stays as it is.",
        ),
        key(
            "port",
            "1 to 65535",
            "the image's health check, or its first exposed port",
            "It is ready when this TCP port accepts.",
        ),
    ],
};

/// A deploy.
pub const DEPLOY: Section = Section {
    path: "deploys.<name>",
    what: "a deploy",
    keys: &[
        key(
            "needs",
            "a name or a list of names",
            "none",
            "Jobs and deploys that must have succeeded before.",
        ),
        filled(
            "release",
            "a path",
            "required",
            "What is shipped: an artifact of a job that it needs, directly or further up.",
        ),
        key(
            "to",
            "environment/service",
            "required",
            "Where to. Both are made by `pipectl envs apply`, and the environment says [what it takes](environments.md#what-an-environment-takes).",
        ),
        key(
            "canary",
            "a list such as `10% for 5m`",
            "all at once",
            "Shares of the traffic, growing, each judged for a time; 36 h in all. For a service of containers.",
        ),
        key(
            "rolling",
            "`25% at a time` or `1 at a time`",
            "all at once",
            "So many hosts at a time; their health checks and hooks decide. For a service on hosts.",
        ),
        key(
            "healthy_when",
            "a list of limits: `error_rate < 1%`, `p95_ms < 300`",
            "none",
            "Limits that must hold while a canary shifts traffic; only with `canary`. Percentiles: p50, p90, p95, p99.",
        ),
        key(
            "otherwise",
            "rollback or hold",
            "rollback",
            "What follows a broken limit, too little data or hosts that fail: the release before comes \
             back, or all stays as it is until a person decides.",
        ),
        key(
            "approve",
            "true or false",
            "false",
            "A person must approve before it starts, also where the environment asks for nobody.",
        ),
        key("when", "a map", "pushes to the default branch", "Which events let it into a run."),
    ],
};

/// `when` of a deploy.
pub const DEPLOY_WHEN: Section = Section {
    path: "deploys.<name>.when",
    what: "`when` of a deploy",
    keys: &[
        key(
            "push",
            "a branch pattern, a list of them, or nothing for every branch",
            "no pushes, if `when` is there",
            "Pushes that deploy.",
        ),
        key("manual", "true or false", "false", "Deploy in runs that a person starts, too."),
    ],
};

/// What to use in place of a key that other systems have, by section (`""` is everywhere) and key.
pub(crate) fn foreign(section: &str, key: &str) -> Option<&'static str> {
    Some(match (section, key) {
        ("", "on" | "true" | "trigger" | "triggers" | "only") => {
            "write `when`; YAML 1.1 reads `on` as true, so Pipeyard does not use it"
        }
        ("", "env" | "variables") => {
            "put `env` under each job; share it with an anchor under a key such as `x-env`"
        }
        ("", "image" | "run" | "steps" | "script" | "services") => {
            "put it under a job: `jobs:`, then a name, then this"
        }
        ("", "name") => "a pipeline is named by its file",
        ("", "version") => "remove it; the language has one version",
        ("", "stages") => "order jobs with `needs`",
        ("", "pipeline" | "pipelines") => {
            "put jobs under `jobs`; another pipeline is another file in `.pipeyard/`"
        }
        ("", "environments") => "environments are made by `pipectl envs apply FILE`",
        ("jobs.<name>", "runs-on" | "runs_on" | "tags" | "agents" | "runner") => {
            "choose runners with `labels`, and what the steps run in with `image`"
        }
        ("jobs.<name>", "steps" | "script" | "commands" | "command" | "cmd") => {
            "write the commands under `run`"
        }
        ("jobs.<name>", "container") => "write `image`",
        (
            "jobs.<name>" | "deploys.<name>",
            "depends_on" | "dependsOn" | "after" | "requires" | "stage",
        ) => "write `needs` with the names of jobs or deploys",
        ("jobs.<name>", "environment" | "variables") => "write `env`",
        ("jobs.<name>" | "jobs.<name>.run[]", "timeout-minutes" | "timeout_minutes") => {
            "write `timeout: 10m`"
        }
        ("jobs.<name>", "retries" | "attempts") => "write `retry`",
        ("jobs.<name>", "artifact" | "outputs" | "paths") => "write `artifacts`",
        ("jobs.<name>", "matrix" | "strategy" | "parallel") => {
            "there is no matrix; write the jobs out, with an anchor for what they share"
        }
        ("jobs.<name>", "cache") => "there is no cache key yet; keep files in the image",
        ("jobs.<name>", "if" | "when" | "only" | "except" | "rules") => {
            "jobs have no conditions; use a file of its own in `.pipeyard/` with another `when`"
        }
        (
            _,
            "privileged" | "volumes" | "mounts" | "network" | "network_mode" | "cap_add"
            | "devices" | "pid",
        ) => "not offered: a pipeline can't reach out of its container",
        (_, "allow_failure" | "continue-on-error" | "continue_on_error") => {
            "not offered; let the command end with `|| true`"
        }
        ("jobs.<name>.services[]", "name" | "hostname" | "host") => "write `alias`",
        ("jobs.<name>.services[]", "ports") => "write `port`: the one that shows that it is ready",
        ("deploys.<name>", "environment" | "target" | "env") => "write `to: environment/service`",
        ("deploys.<name>", "artifact" | "artifacts" | "image" | "bundle") => "write `release`",
        ("deploys.<name>", "strategy" | "steps") => "write `canary` or `rolling`",
        ("deploys.<name>", "approval" | "manual") => "write `approve: true`",
        ("deploys.<name>", "rollback") => "write `otherwise: rollback`",
        ("deploys.<name>", "run" | "script") => {
            "deploys run nothing; a job can need a deploy and run after it"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_written_twice_or_without_its_meaning() {
        for section in SECTIONS {
            let mut names: Vec<_> = section.names().collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), section.keys.len(), "{}", section.path);
            for key in section.keys {
                assert!(
                    !key.form.is_empty() && !key.default.is_empty() && key.doc.ends_with('.'),
                    "{}",
                    key.name
                );
            }
        }
    }
}
