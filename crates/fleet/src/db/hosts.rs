//! Keys of hosts, the enrolments that hand them out, and signatures that were taken.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use pipeyard_model::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{Db, InstanceDoc, Result, from_doc, to_doc};
use crate::{Token, credentials::AccessKey, sigv4::MAX_SKEW};

/// What an enrolment says of its host.
#[derive(Debug, Clone)]
pub(crate) struct NewEnrolment<'a> {
    pub(crate) name: &'a str,
    /// The ARN of a host that isn't registered yet.
    pub(crate) identity: &'a str,
    /// Replaces the host's tags if given.
    pub(crate) tags: Option<&'a BTreeMap<String, String>>,
    /// Replaces the host's address if given.
    pub(crate) address: Option<SocketAddr>,
    /// The sha256 of the code.
    pub(crate) code: &'a str,
    pub(crate) expires: Timestamp,
}

/// What came of asking for an enrolment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Enrolling {
    /// It counts, for the host with this ARN.
    Done { identity: String },
    /// Nobody ever said where the host's service answers.
    NoAddress,
    /// There are as many hosts as there may be.
    Full,
}

/// A host's key, and whose it is.
#[derive(Debug, Clone)]
pub(crate) struct HostKey {
    pub(crate) instance: String,
    pub(crate) identity: String,
    pub(crate) key: AccessKey,
}

/// A host's key or enrolment, for a list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    pub(crate) access_key: Option<(String, Timestamp)>,
    pub(crate) enrolment_until: Option<Timestamp>,
}

/// Signatures that are remembered at most; a key that signs more within the hour is stopped.
const MAX_SIGNATURES: i64 = 500_000;
/// How old a stamp may be while two calls may share a signature.
const FRESH: Duration = Duration::from_secs(2);
/// How long one is remembered beyond the time at which it is too old: clocks are set back too.
const MARGIN: Duration = Duration::from_secs(3_600);

impl Db {
    /// Registers the host if it isn't, says what it is, and makes its older enrolments worthless.
    /// The key that it has stays good until the new one is fetched.
    pub(crate) async fn put_enrolment(
        &self,
        new: &NewEnrolment<'_>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Enrolling> {
        let mut tx = self.begin().await?;
        let known = sqlx::query!(
            "SELECT identity, doc FROM instance WHERE name = ? AND deregistered IS NULL",
            new.name
        )
        .fetch_optional(&mut *tx)
        .await?;
        let (identity, mut doc) = match known {
            Some(row) => (row.identity, from_doc::<InstanceDoc>(&row.doc)?),
            None => (new.identity.to_owned(), InstanceDoc::default()),
        };
        doc.address = new.address.or(doc.address);
        if doc.address.is_none() {
            return Ok(Enrolling::NoAddress);
        }
        let count = sqlx::query_scalar!("SELECT COUNT(*) FROM instance WHERE name <> ?", new.name)
            .fetch_one(&mut *tx)
            .await?;
        if usize::try_from(count).unwrap_or(usize::MAX) >= limit {
            return Ok(Enrolling::Full);
        }
        let doc = to_doc(&doc)?;
        sqlx::query!(
            "INSERT INTO instance (name, registered, identity, doc) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (name) DO UPDATE
             SET registered = CASE WHEN deregistered IS NULL THEN registered ELSE ?2 END,
                 deregistered = NULL, identity = ?3, doc = ?4",
            new.name,
            now.0,
            identity,
            doc
        )
        .execute(&mut *tx)
        .await?;
        if let Some(tags) = new.tags {
            sqlx::query!("DELETE FROM instance_tag WHERE instance = ?", new.name)
                .execute(&mut *tx)
                .await?;
            for (key, value) in tags {
                sqlx::query!(
                    "INSERT INTO instance_tag (instance, key, value) VALUES (?, ?, ?)",
                    new.name,
                    key,
                    value
                )
                .execute(&mut *tx)
                .await?;
            }
        }
        sqlx::query!("DELETE FROM enrolment WHERE instance = ? OR expires < ?", new.name, now.0)
            .execute(&mut *tx)
            .await?;
        sqlx::query!(
            "INSERT INTO enrolment (code, instance, made, expires) VALUES (?, ?, ?, ?)",
            new.code,
            new.name,
            now.0,
            new.expires.0
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Enrolling::Done { identity })
    }

    /// Exchanges a code for a key, once; the key before is worth nothing from then on. Who asks
    /// again with the same code and secret, because the answer was lost, gets the same answer.
    pub(crate) async fn enrol(
        &self,
        code: &str,
        key: &AccessKey,
        now: Timestamp,
    ) -> Result<Option<HostKey>> {
        // Anybody may ask: a guess doesn't get as far as the one writer.
        let known = sqlx::query_scalar!("SELECT COUNT(*) FROM enrolment WHERE code = ?", code)
            .fetch_one(&self.read)
            .await?;
        if known == 0 {
            return Ok(None);
        }
        let mut tx = self.begin().await?;
        let found = sqlx::query!(
            "SELECT e.instance, e.access_key, i.identity FROM enrolment AS e
             JOIN instance AS i ON i.name = e.instance AND i.deregistered IS NULL
             WHERE e.code = ? AND e.expires >= ?",
            code,
            now.0
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(found) = found else { return Ok(None) };
        let secret = key.secret_access_key.reveal();
        let made = |id: String| HostKey {
            instance: found.instance.clone(),
            identity: found.identity.clone(),
            key: AccessKey { access_key_id: id, secret_access_key: key.secret_access_key.clone() },
        };
        if let Some(before) = found.access_key {
            let same = sqlx::query_scalar!(
                "SELECT COUNT(*) FROM host_key
                 WHERE access_key = ? AND secret = ? AND revoked IS NULL",
                before,
                secret
            )
            .fetch_one(&mut *tx)
            .await?;
            return Ok((same > 0).then(|| made(before)));
        }
        sqlx::query!(
            "UPDATE host_key SET revoked = ? WHERE instance = ? AND revoked IS NULL",
            now.0,
            found.instance
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "INSERT INTO host_key (access_key, instance, secret, made) VALUES (?, ?, ?, ?)",
            key.access_key_id,
            found.instance,
            secret,
            now.0
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!("UPDATE enrolment SET access_key = ? WHERE code = ?", key.access_key_id, code)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Some(made(key.access_key_id.clone())))
    }

    /// The key with this id, if it is good and its host is registered.
    pub(crate) async fn host_key(&self, access_key: &str) -> Result<Option<HostKey>> {
        let row = sqlx::query!(
            "SELECT k.instance, k.secret, i.identity FROM host_key AS k
             JOIN instance AS i ON i.name = k.instance AND i.deregistered IS NULL
             WHERE k.access_key = ? AND k.revoked IS NULL",
            access_key
        )
        .fetch_optional(&self.read)
        .await?;
        Ok(row.map(|row| HostKey {
            instance: row.instance,
            identity: row.identity,
            key: AccessKey {
                access_key_id: access_key.to_owned(),
                secret_access_key: Token::new(row.secret),
            },
        }))
    }

    /// Who has a key, and who may still fetch one.
    pub(crate) async fn access(&self, now: Timestamp) -> Result<BTreeMap<String, Access>> {
        let mut all: BTreeMap<String, Access> = BTreeMap::new();
        let keys =
            sqlx::query!("SELECT instance, access_key, made FROM host_key WHERE revoked IS NULL")
                .fetch_all(&self.read)
                .await?;
        for row in keys {
            all.entry(row.instance).or_default().access_key =
                Some((row.access_key, Timestamp(row.made)));
        }
        let open = sqlx::query!(
            "SELECT instance, expires FROM enrolment WHERE access_key IS NULL AND expires >= ?",
            now.0
        )
        .fetch_all(&self.read)
        .await?;
        for row in open {
            all.entry(row.instance).or_default().enrolment_until = Some(Timestamp(row.expires));
        }
        Ok(all)
    }

    /// Whether this host was told to install this bundle, and hasn't ended that yet.
    pub(crate) async fn may_fetch(&self, instance: &str, bucket: &str, key: &str) -> Result<bool> {
        let open = sqlx::query_scalar!(
            "SELECT COUNT(*) FROM command WHERE instance = ? AND ended IS NULL
             AND json_extract(doc, '$.bucket') = ? AND json_extract(doc, '$.key') = ?",
            instance,
            bucket,
            key
        )
        .fetch_one(&self.read)
        .await?;
        Ok(open > 0)
    }

    /// Takes a signature that is good until `expires`; false if it was taken before, or if too many
    /// are remembered. On disk before the request does anything, so a restart forgets none.
    ///
    /// A stamp counts seconds, and some SDKs don't sign the id that tells two of their calls apart: two
    /// honest calls of one second may have one signature. So while a stamp is fresh, the same signature
    /// with another `call` is another call.
    pub(crate) async fn take_signature(
        &self,
        signature: &str,
        call: &str,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<bool> {
        let mut tx = self.begin().await?;
        sqlx::query!("DELETE FROM taken_signature WHERE until < ?", now.0)
            .execute(&mut *tx)
            .await?;
        let until = expires + MARGIN;
        let call = hex::encode(Sha256::digest(call.as_bytes()));
        let with_call = format!("{signature}/{call}");
        let mut new = [false; 2];
        for (key, new) in [signature, with_call.as_str()].into_iter().zip(&mut new) {
            let done = sqlx::query!(
                "INSERT INTO taken_signature (signature, until)
                 SELECT ?1, ?2 WHERE (SELECT COUNT(*) FROM taken_signature) < ?3
                 ON CONFLICT DO NOTHING",
                key,
                until.0,
                MAX_SIGNATURES
            )
            .execute(&mut *tx)
            .await?;
            *new = done.rows_affected() == 1;
        }
        tx.commit().await?;
        let fresh = now + MAX_SKEW <= expires + FRESH;
        Ok(new[0] || (fresh && new[1]))
    }
}
