//! The audit log: rows that nobody changes, each chained to the one before it by a hash.
//!
//! A row's hash covers the hash before it and everything that the row says. Whoever changes, inserts
//! or removes a row breaks the chain there; whoever removes the last rows is betrayed by the chain's
//! head, which is kept apart. Whoever can write the database can of course write a whole new chain:
//! against that a head is written down elsewhere and compared.

use pipeyard_model::{Actor, Timestamp};
use sha2::{Digest as _, Sha256};

/// SHA-256 of a row and all rows before it.
pub type Link = [u8; 32];

/// A change that is to be recorded, where it has no other row.
#[derive(Debug, Clone)]
pub struct Note {
    /// Who.
    pub by: Actor,
    /// `login.refused`, ...
    pub action: &'static str,
    /// What it was done to.
    pub target: String,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Always increasing.
    pub seq: i64,
    /// When.
    pub at: Timestamp,
    /// The kind of who did it: `user`, `runner`, `attempt`, `forge`, `pipeyard`, `nobody`.
    pub who: String,
    /// Its id, if its kind has one.
    pub who_id: Option<String>,
    /// What it was called then; `pipeyard` for the server itself.
    pub actor: String,
    /// The session or token.
    pub credential: Option<String>,
    /// Where the request came from.
    pub address: Option<String>,
    /// `secret.set`, `run.cancel`, ...
    pub action: String,
    /// What it was done to.
    pub target: String,
    /// What was there before, as JSON.
    pub before: Option<String>,
    /// What is there now, as JSON.
    pub after: Option<String>,
    /// None in rows from before the chain began.
    pub hash: Option<Link>,
}

impl AuditEntry {
    /// The row's hash after `previous`.
    #[must_use]
    pub fn link(&self, previous: &Link) -> Link {
        let mut hash = Sha256::new();
        hash.update(b"pipeyard audit 1\0");
        hash.update(previous);
        hash.update(self.seq.to_be_bytes());
        hash.update(self.at.0.to_be_bytes());
        let fields = [
            Some(&self.who),
            self.who_id.as_ref(),
            Some(&self.actor),
            self.credential.as_ref(),
            self.address.as_ref(),
            Some(&self.action),
            Some(&self.target),
            self.before.as_ref(),
            self.after.as_ref(),
        ];
        for field in fields {
            // A length in front of each: no two rows give the same bytes.
            let length = field.map_or(u64::MAX, |text| text.len() as u64);
            hash.update(length.to_be_bytes());
            hash.update(field.map_or(&[][..], |text| text.as_bytes()));
        }
        hash.finalize().into()
    }
}

/// The link that the first row is chained to where there was none before.
#[must_use]
pub fn first_link() -> Link {
    Sha256::digest(b"pipeyard audit chain").into()
}

/// Where the chain begins and ends, as it is kept beside the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// The rows up to this one are from before the chain; the genesis covers them.
    pub begins_after: i64,
    /// What the first chained row follows.
    pub genesis: Link,
    /// The newest row, 0 if there is none.
    pub seq: i64,
    /// Its hash.
    pub hash: Link,
}

/// Where the log isn't what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The first row that doesn't fit.
    pub seq: i64,
    /// How it doesn't fit, in words.
    pub problem: String,
}

/// Checks rows one by one, oldest first.
#[derive(Debug)]
pub struct Checker {
    chain: Chain,
    last: Link,
    rows: u64,
    unchained: u64,
    seq: i64,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Rows of the chain.
    pub rows: u64,
    /// Rows from before it.
    pub before: u64,
    /// The newest row and its hash, as the rows give them.
    pub head: (i64, Link),
    /// The first row that doesn't fit.
    pub broken: Option<Broken>,
}

impl Checker {
    /// For a log with this chain.
    #[must_use]
    pub fn new(chain: Chain) -> Self {
        Self { last: first_link(), rows: 0, unchained: 0, seq: 0, chain }
    }

    /// Takes the next row.
    ///
    /// # Errors
    /// When it isn't what was written.
    pub fn row(&mut self, row: &AuditEntry) -> Result<(), Broken> {
        let broken = |problem: &str| Broken { seq: row.seq, problem: problem.to_owned() };
        if row.seq > self.chain.begins_after && self.rows == 0 && self.last != self.chain.genesis {
            return Err(broken("a row from before the chain was changed, added or removed"));
        }
        self.seq = row.seq;
        let link = row.link(&self.last);
        match row.hash {
            None if row.seq <= self.chain.begins_after => self.unchained += 1,
            None => return Err(broken("it was not written by Pipeyard: it has no hash")),
            Some(_) if row.seq <= self.chain.begins_after => {
                return Err(broken("it claims to be older than the chain"));
            }
            Some(hash) if hash == link => self.rows += 1,
            Some(_) => {
                return Err(broken("it, or a row before it, was changed, added or removed"));
            }
        }
        self.last = link;
        Ok(())
    }

    /// Whether the rows end where the chain does; `broken` is what [`Checker::row`] said.
    #[must_use]
    pub fn end(self, broken: Option<Broken>) -> Checked {
        let head = (self.seq, self.last);
        let cut = || {
            let missing = self.chain.seq != self.seq || self.chain.hash != self.last;
            let problem = format!(
                "the newest rows were removed: the chain ends at {}, the rows end at {}",
                self.chain.seq, self.seq
            );
            missing.then(|| Broken { seq: self.seq.saturating_add(1), problem })
        };
        let broken = broken.or_else(cut);
        Checked { rows: self.rows, before: self.unchained, head, broken }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(seq: i64) -> AuditEntry {
        AuditEntry {
            seq,
            at: Timestamp(seq * 1000),
            who: "user".into(),
            who_id: Some("1".into()),
            actor: "ann".into(),
            credential: Some("c".into()),
            address: Some("127.0.0.1".into()),
            action: "run.cancel".into(),
            target: format!("run {seq}"),
            before: None,
            after: Some("{}".into()),
            hash: None,
        }
    }

    /// Two rows from before the chain, four of it.
    fn log() -> (Chain, Vec<AuditEntry>) {
        let mut last = first_link();
        let mut chain = Chain { begins_after: 2, genesis: last, seq: 0, hash: last };
        let mut rows = Vec::new();
        for seq in 1..=6 {
            let mut row = row(seq);
            last = row.link(&last);
            if seq == 2 {
                chain.genesis = last;
            }
            if seq > 2 {
                row.hash = Some(last);
            }
            rows.push(row);
        }
        chain.seq = 6;
        chain.hash = last;
        (chain, rows)
    }

    fn check(chain: Chain, rows: &[AuditEntry]) -> Checked {
        let mut checker = Checker::new(chain);
        let broken = rows.iter().find_map(|row| checker.row(row).err());
        checker.end(broken)
    }

    #[test]
    fn an_untouched_log_is_whole() {
        let (chain, rows) = log();
        let checked = check(chain, &rows);
        assert_eq!((checked.rows, checked.before, checked.broken), (4, 2, None));
    }

    #[test]
    fn every_field_of_every_row_is_covered() {
        type Change = fn(&mut AuditEntry);
        let changes: [Change; 11] = [
            |r| r.at = Timestamp(7),
            |r| r.who = "nobody".into(),
            |r| r.who_id = None,
            |r| r.actor = "bob".into(),
            |r| r.credential = None,
            |r| r.address = Some("10.0.0.1".into()),
            |r| r.action = "run.rerun".into(),
            |r| r.target = "run 9".into(),
            |r| r.before = Some(String::new()),
            |r| r.after = None,
            |r| r.hash = r.hash.map(|_| [0; 32]),
        ];
        for (n, change) in changes.iter().enumerate() {
            for place in 0..6 {
                // The oldest rows have no hash that could be changed.
                if n == 10 && place < 2 {
                    continue;
                }
                let (chain, mut rows) = log();
                change(&mut rows[place]);
                let broken = check(chain, &rows).broken.expect("it is noticed");
                let at = if place < 2 { 3 } else { place as i64 + 1 };
                assert_eq!(broken.seq, at, "change {n} of row {place}");
            }
        }
    }

    #[test]
    fn a_row_that_is_missing_or_added_is_noticed_wherever_it_is() {
        for place in 0..6 {
            let (chain, mut rows) = log();
            rows.remove(place);
            assert!(check(chain, &rows).broken.is_some(), "without row {place}");
        }
        for hash in [None, Some([7; 32])] {
            let (chain, mut rows) = log();
            rows.push(AuditEntry { hash, ..row(7) });
            assert_eq!(check(chain, &rows).broken.map(|b| b.seq), Some(7));
        }
        let (chain, _) = log();
        assert!(check(chain, &[]).broken.is_some());
    }

    #[test]
    fn moving_text_from_one_field_to_the_next_changes_the_hash() {
        let one = AuditEntry { action: "ab".into(), target: "c".into(), ..row(1) };
        let two = AuditEntry { action: "a".into(), target: "bc".into(), ..row(1) };
        assert_ne!(one.link(&first_link()), two.link(&first_link()));
        let none = AuditEntry { before: None, ..row(1) };
        let empty = AuditEntry { before: Some(String::new()), ..row(1) };
        assert_ne!(none.link(&first_link()), empty.link(&first_link()));
    }
}
