//! Every code that an outcome or an error of an executor can carry, with what it means and what to do.
//! The message of a reason says the same of the case at hand; this is the page behind the code.

/// Code and explanation, sorted by code.
pub const ALL: &[(&str, &str)] = &[
    (
        "bad_environment",
        "A variable of the job has a name or a value that no process can have: an empty name, one \
         with '=', or a zero byte in either. Rename it or encode its value.",
    ),
    ("bad_steps", "A job must have 1 to 999 steps. Split it into several jobs."),
    (
        "cancelled",
        "A person, or a newer push, cancelled the job. Its processes got SIGTERM, and SIGKILL after the grace period.",
    ),
    (
        "container_lost",
        "The runner lost its connection to the job's container, and the container was removed. The \
         job's result is not known, so it is an error and not a failure. Start the job again; if it \
         happens often, look into the Docker daemon's log.",
    ),
    (
        "data_dir",
        "The runner can't write to its data folder. Check the folder's owner and the free space.",
    ),
    (
        "disk_limit",
        "The job put more on the runner's disk than it may: files in its workspace, or in its \
         containers and their volumes. The figures are in the message. Write less, remove what isn't \
         needed any more, or raise `--disk` of the runner. Usage is measured every few seconds, so a \
         job may pass its limit for a moment.",
    ),
    (
        "docker_lost",
        "Docker went away while the job ran, so its result is not known: a job is never green without \
         the confirmation of its end. Look into the daemon's log on the runner's machine.",
    ),
    (
        "docker_refused",
        "Docker answered with an error; its words are in the message. Often it is a mistake in the \
         job's image or a limit of the machine.",
    ),
    (
        "docker_unavailable",
        "Docker doesn't answer. The runner takes no jobs until it does, and hands back those of which \
         nothing was begun. Check with `docker version` on the runner's machine that the daemon \
         runs and that the runner's user may use its socket.",
    ),
    (
        "egress_unenforceable",
        "The runner keeps jobs from the machine's own addresses and from its cloud's metadata service \
         by iptables, and can't set the rules: it isn't root, there is no iptables, or Docker runs in \
         another network namespace or with another firewall. Mend that, or start the runner with \
         `--egress open`; jobs may then connect to everything that the machine can.",
    ),
    (
        "handed_back",
        "A runner claimed the job, could begin nothing of it (its Docker doesn't answer, its disk is \
         full), and gave it back. The attempt isn't spent; the job waits for a runner that can. \
         `pipectl runners list` shows which can't, and why.",
    ),
    (
        "image_is_an_id",
        "An image was named by its id on the runner's machine, or the beginning of one. By its id a job \
         could use every image there, those of other repositories too. Write `name:tag` or \
         `name@sha256:digest`.",
    ),
    (
        "image_name_invalid",
        "The text is not the name of an image. Write `name`, `name:tag`, `registry/name:tag` or \
         `name@sha256:digest`.",
    ),
    (
        "image_not_found",
        "The image is not on the runner's machine, and its registry has none of that name or doesn't \
         show it to this job. Check the name and the tag. For a private image, `docker login` on the \
         runner's machine and name the repositories that may use it: `--registry-auth`.",
    ),
    ("image_pull_failed", "Docker could not pull the image; its words are in the message."),
    ("internal", "A mistake in Pipeyard itself. Please report it with the message."),
    (
        "job_timeout",
        "The job ran longer than its `timeout`. Raise it, or find out what hangs: the log ends where it stood.",
    ),
    (
        "networks_exhausted",
        "The runner's address range has no free subnet left for a network. Give the runner another \
         range, or remove unused Docker networks.",
    ),
    (
        "no_command",
        "The image of a service has neither an entrypoint nor a command. Give the service a `command`.",
    ),
    (
        "no_sentinel",
        "The job's container ended before the job confirmed its end, so its result is not known. \
         Something outside of the job stopped it: a restart of Docker, `docker kill`, or the machine \
         ran out of memory.",
    ),
    (
        "no_shell",
        "The image has no /bin/sh, which runs the steps. Use an image with a shell, such as the \
         `-debug` or `-alpine` variant.",
    ),
    (
        "no_workspace",
        "The job's workspace folder is not there. Check the disk of the runner's machine.",
    ),
    (
        "out_of_memory",
        "The kernel killed a process of the job because its memory limit, or the machine's memory, was \
         used up. Use less memory (fewer parallel compilers, for example), or raise `--memory` of the \
         runner, `--service-memory` for services.",
    ),
    (
        "output_unheard",
        "The runner stopped taking the job's output, so the executor ended the job. See the runner's own log.",
    ),
    (
        "processes_remain",
        "Processes of the job could not be ended, not even by SIGKILL. Look for them on the runner's machine; often a disk or network file system hangs.",
    ),
    (
        "registry_denied",
        "The registry wants other credentials. `docker login` on the runner's machine as the runner's \
         user, and say which repositories may use that login: \
         `--registry-auth ghcr.io/acme=acme/shop`. Images that such a rule names are for those \
         repositories only, also when they are on the machine already.",
    ),
    (
        "registry_rate_limit",
        "The registry's rate limit is reached. Wait, `docker login`, or use a mirror.",
    ),
    (
        "registry_unreachable",
        "The image is not on the runner's machine and its registry can't be reached. Check the network \
         and the proxy of the Docker daemon, or load the image on the machine: one that is there is \
         never pulled.",
    ),
    (
        "runner_disk_full",
        "The disk of the runner's machine has less free space than is kept free, so no job is taken, or \
         Docker said that it is full. Free space: `docker system prune`, old workspaces, logs.",
    ),
    (
        "runners_unable",
        "Runners that could take the job are there and can run nothing; the message has the words of \
         one. Mend it on that runner's machine; it goes on by itself.",
    ),
    ("service_failed", "A service ended before it was ready. Its last lines are in the job's log."),
    (
        "service_not_ready",
        "A service was not ready in time: its HEALTHCHECK did not pass, or its port did not accept a \
         connection. Its last lines are in the job's log; name another port in `ready` if the wrong \
         one was tried.",
    ),
    (
        "services_need_docker",
        "The runner runs jobs without Docker and can't start services. Use a runner with Docker.",
    ),
    (
        "shim_start_failed",
        "The runner can't start a program from its data folder. Check that the file system isn't mounted `noexec`.",
    ),
    ("step_failed", "A step exited with a code other than 0. The last lines of its log say why."),
    (
        "step_killed",
        "A signal ended a step, and it was not Pipeyard's. The step or the machine's administrator sent it.",
    ),
    (
        "step_start_failed",
        "The step's shell could not be started: the script or its environment is too long for one \
         process (128 KiB a piece), or the limit of processes is reached.",
    ),
    ("step_timeout", "A step ran longer than its own `timeout`. Raise it, or find out what hangs."),
    ("too_many_services", "A job may have 11 services at most."),
    (
        "unknown_user",
        "The image's USER is not in its own /etc/passwd. Mend the image, or give the USER as a number.",
    ),
    (
        "userns_needs_root",
        "Docker maps the users of containers to others of the machine (userns-remap), so the workspace \
         must be given to such a user, which only root may. Run the runner as root.",
    ),
    (
        "userns_unknown",
        "Docker maps the users of containers (userns-remap) and doesn't say to whom. Please report it.",
    ),
];

/// What a code means and what to do; `None` if no executor uses it.
#[must_use]
pub fn explain(code: &str) -> Option<&'static str> {
    let place = ALL.binary_search_by_key(&code, |(known, _)| known).ok()?;
    Some(ALL[place].1)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    /// Codes are the first argument of these.
    const MAKERS: [&str; 5] =
        ["Fault::new(\n", "Fault::new(\"", "return Err((\"", ".ok_or((\"", "code: \""];

    fn codes_in(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                codes_in(&path, found);
            } else if !path.ends_with("fake.rs") && !path.ends_with("reasons.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
                for maker in MAKERS {
                    for rest in text.split(maker).skip(1) {
                        let word = rest.trim_start().trim_start_matches('"');
                        found.extend(word.split('"').next().map(ToOwned::to_owned));
                    }
                }
            }
        }
    }

    #[test]
    fn every_code_has_its_page() {
        assert!(ALL.is_sorted_by_key(|(code, _)| code), "sorted, for the search");
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = BTreeSet::new();
        codes_in(&here.join("src"), &mut found);
        codes_in(&here.join("../shim/src"), &mut found);
        assert!(found.len() > 20, "{found:?}");
        for code in &found {
            assert!(explain(code).is_some(), "{code} has no page");
        }
    }
}
