//! How it stands with what serves, as its provider said last. In memory: a reading of the present,
//! of no use after a restart.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use pipeyard_api::deploys::HealthView;
use pipeyard_model::{EnvironmentName, ServiceName};

/// The last reading of each service.
#[derive(Debug, Default)]
pub struct Readings(Mutex<BTreeMap<(EnvironmentName, ServiceName), HealthView>>);

impl Readings {
    /// The last reading of a service; none before the first, and none when nobody can say.
    #[must_use]
    pub fn of(&self, environment: &EnvironmentName, service: &ServiceName) -> Option<HealthView> {
        let readings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        readings.get(&(environment.clone(), service.clone())).cloned()
    }

    /// All readings anew; what isn't among them is forgotten. Whether a state differs from before.
    pub(crate) fn replace(
        &self,
        new: BTreeMap<(EnvironmentName, ServiceName), HealthView>,
    ) -> bool {
        let mut readings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let differs = new.len() != readings.len()
            || new.iter().any(|(place, health)| {
                readings.get(place).is_none_or(|before| before.state != health.state)
            });
        *readings = new;
        differs
    }
}
