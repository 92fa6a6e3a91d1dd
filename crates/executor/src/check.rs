//! What every executor checks before a job's first step.

use crate::{JobRun, fault::Fault};

/// Checks what the types don't: the numbers, the workspace and the environment's names.
pub(crate) fn job(run: &JobRun) -> Result<(), Fault> {
    let steps = run.spec.steps.len();
    if steps == 0 || steps > 999 {
        let message = format!("The job has {steps} steps; it must have 1 to 999.");
        return Err(Fault::new("bad_steps", message));
    }
    if !run.workspace.is_absolute() || !run.workspace.is_dir() {
        let message = format!("There is no workspace folder {}.", run.workspace.display());
        return Err(Fault::new("no_workspace", message));
    }
    let spec = &run.spec;
    let pairs = run
        .env
        .iter()
        .chain(&spec.env)
        .chain(spec.steps.iter().flat_map(|step| &step.env))
        .chain(spec.services.iter().flat_map(|service| &service.env));
    for (name, value) in pairs {
        if name.is_empty() || name.contains(['=', '\0']) {
            let message = format!("{name:?} can't be the name of a variable.");
            return Err(Fault::new("bad_environment", message));
        }
        if value.contains('\0') {
            let message = format!("The variable {name} holds a zero byte.");
            return Err(Fault::new("bad_environment", message));
        }
    }
    for (name, value) in &run.secrets {
        if value.0.contains('\0') {
            let message = format!("The secret {name} holds a zero byte, which no variable can.");
            return Err(Fault::new("bad_environment", message));
        }
    }
    Ok(())
}
