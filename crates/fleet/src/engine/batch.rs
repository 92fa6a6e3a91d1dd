//! CodeDeploy's arithmetic of batches, pure.
//!
//! With N hosts and a minimum of M healthy ones, a batch has at most N - M - failed hosts, and it
//! takes so many healthy ones only as leaves M in service. It is over when no host is left; it
//! has failed when hosts are left and none of them may be taken.

use crate::aws::Minimum;

/// A host as the arithmetic sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) place: Place,
    /// It answers its health check now.
    pub(super) healthy: bool,
}

/// Where a host stands in the deployment. Those that wait are taken in the order of the variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Waits; doesn't answer its health check.
    Unhealthy,
    /// Waits; its agent is silent.
    Unknown,
    /// Waits; has another revision.
    Old,
    /// Waits; has this revision already.
    Current,
    Succeeded,
    Failed,
}

impl Place {
    const fn waits(self) -> bool {
        matches!(self, Self::Unhealthy | Self::Unknown | Self::Old | Self::Current)
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Deploy to the hosts at these places of the list.
    Batch(Vec<usize>),
    /// Every host was tried, and enough of them succeeded.
    Succeeded,
    /// Another host would break the minimum, or too few succeeded.
    Failed,
}

/// The minimum as a number of hosts.
pub(super) fn minimum(minimum: Minimum, hosts: usize) -> usize {
    match minimum {
        Minimum::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
        Minimum::Percent(percent) => (hosts * usize::from(percent)).div_ceil(100),
        Minimum::AllButOne => hosts.saturating_sub(1),
    }
}

/// The next step. No host may be at work.
pub(super) fn next(hosts: &[Host], rule: Minimum) -> Next {
    let minimum = minimum(rule, hosts.len());
    let count = |place: Place| hosts.iter().filter(|host| host.place == place).count();
    let (succeeded, failed) = (count(Place::Succeeded), count(Place::Failed));
    let mut waiting: Vec<usize> = (0..hosts.len()).filter(|i| hosts[*i].place.waits()).collect();
    if waiting.is_empty() {
        let enough = succeeded >= minimum.max(1);
        return if enough { Next::Succeeded } else { Next::Failed };
    }
    waiting.sort_by_key(|i| (hosts[*i].place, *i));
    let in_service = hosts.iter().filter(|h| h.healthy && h.place != Place::Failed).count();
    let size = hosts.len().saturating_sub(failed + minimum);
    let mut spare = in_service.saturating_sub(minimum);
    let mut batch = Vec::new();
    for i in waiting {
        if batch.len() == size {
            break;
        }
        if hosts[i].healthy {
            if spare == 0 {
                continue;
            }
            spare -= 1;
        }
        batch.push(i);
    }
    if batch.is_empty() { Next::Failed } else { Next::Batch(batch) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(count: usize) -> Vec<Host> {
        vec![Host { place: Place::Old, healthy: true }; count]
    }

    /// Deploys with the given results in order; returns the sizes of the batches, the end, and the
    /// lowest number of hosts in service.
    fn play(count: usize, rule: Minimum, results: &[bool]) -> (Vec<usize>, Next, usize) {
        let mut hosts = hosts(count);
        let (mut sizes, mut results, mut lowest) = (Vec::new(), results.iter(), count);
        loop {
            match next(&hosts, rule) {
                Next::Batch(batch) => {
                    sizes.push(batch.len());
                    let healthy = hosts.iter().filter(|host| host.healthy).count();
                    lowest = lowest.min(healthy - batch.len());
                    for i in batch {
                        let good = *results.next().unwrap_or(&true);
                        let place = if good { Place::Succeeded } else { Place::Failed };
                        hosts[i] = Host { place, healthy: good };
                    }
                }
                end => return (sizes, end, lowest),
            }
        }
    }

    #[test]
    fn nine_hosts_with_six_healthy_go_three_at_a_time() {
        let (sizes, end, lowest) = play(9, Minimum::Count(6), &[]);
        assert_eq!((sizes, end, lowest), (vec![3, 3, 3], Next::Succeeded, 6));
    }

    #[test]
    fn nine_hosts_with_forty_percent_go_five_at_a_time_and_four_must_succeed() {
        assert_eq!(minimum(Minimum::Percent(40), 9), 4);
        let (sizes, end, lowest) = play(9, Minimum::Percent(40), &[]);
        assert_eq!((sizes, end, lowest), (vec![5, 4], Next::Succeeded, 4));
        let (sizes, end, _) = play(9, Minimum::Percent(40), &[false; 5]);
        assert_eq!((sizes, end), (vec![5], Next::Failed));
        // Four of the first five fail: one at a time from then on, and four succeed in the end.
        let (_, end, lowest) = play(9, Minimum::Percent(40), &[false, false, false, false]);
        assert_eq!((end, lowest), (Next::Succeeded, 4));
    }

    #[test]
    fn ten_hosts_with_ninety_five_percent_fail_at_once() {
        assert_eq!(minimum(Minimum::Percent(95), 10), 10);
        let (sizes, end, _) = play(10, Minimum::Percent(95), &[]);
        assert_eq!((sizes, end), (vec![], Next::Failed));
    }

    #[test]
    fn ten_hosts_with_nine_healthy_bear_a_failure_of_the_last_only() {
        let (sizes, end, lowest) = play(10, Minimum::Count(9), &[]);
        assert_eq!((sizes, end, lowest), (vec![1; 10], Next::Succeeded, 9));
        let (sizes, end, _) = play(10, Minimum::Count(9), &[true, true, false]);
        assert_eq!((sizes, end), (vec![1; 3], Next::Failed));
        let mut last = [true; 10];
        last[9] = false;
        assert_eq!(play(10, Minimum::Count(9), &last).1, Next::Succeeded);
    }

    #[test]
    fn a_minimum_of_none_takes_all_at_once_and_one_success_is_enough() {
        let mut results = [false; 9];
        results[8] = true;
        let (sizes, end, _) = play(9, Minimum::Count(0), &results);
        assert_eq!((sizes, end), (vec![9], Next::Succeeded));
        assert_eq!(play(9, Minimum::Count(0), &[false; 9]).1, Next::Failed);
    }

    #[test]
    fn one_at_a_time_works_for_one_host() {
        let (sizes, end, _) = play(1, Minimum::AllButOne, &[]);
        assert_eq!((sizes, end), (vec![1], Next::Succeeded));
        assert_eq!(play(1, Minimum::AllButOne, &[false]).1, Next::Failed);
    }

    #[test]
    fn half_at_a_time_rounds_the_minimum_up() {
        let (sizes, _, lowest) = play(9, Minimum::Percent(50), &[]);
        assert_eq!((sizes, lowest), (vec![4, 4, 1], 5));
    }

    #[test]
    fn hosts_go_in_the_order_unhealthy_unknown_old_current() {
        let places = [Place::Current, Place::Old, Place::Unknown, Place::Unhealthy];
        let mut hosts: Vec<Host> =
            places.iter().map(|place| Host { place: *place, healthy: true }).collect();
        hosts[3].healthy = false;
        assert_eq!(next(&hosts, Minimum::Count(1)), Next::Batch(vec![3, 2, 1]));
    }

    #[test]
    fn a_host_that_is_down_already_costs_nobody_else_its_place() {
        let mut hosts = hosts(3);
        hosts[1] = Host { place: Place::Unhealthy, healthy: false };
        // Two answer and two must: only the one that is down may be taken.
        assert_eq!(next(&hosts, Minimum::Count(2)), Next::Batch(vec![1]));
        hosts[1] = Host { place: Place::Failed, healthy: false };
        assert_eq!(next(&hosts, Minimum::Count(2)), Next::Failed);
    }

    #[test]
    fn never_fewer_than_the_minimum_for_any_fleet() {
        for count in 1..12usize {
            for least in 0..count {
                let rule = Minimum::Count(u32::try_from(least).unwrap());
                for bits in 0..(1u32 << count.min(8)) {
                    let results: Vec<bool> =
                        (0..count).map(|i| bits & (1 << (i % 8)) == 0).collect();
                    let (_, _, lowest) = play(count, rule, &results);
                    assert!(lowest >= least, "{count} hosts, minimum {least}, {results:?}");
                }
            }
        }
    }
}
