//! Ids that are reserved once over all partitions. Each id is a key of its own with an end, in the slot its name falls into; which
//! partitions were told is one set per register and teller, lost together with the ids when Redis is emptied.

use std::collections::BTreeSet;
use std::fmt::Write;

use connector_ports::gate::{GateError, Register, Reservation};
use futures::future::try_join_all;
use redis::{Cmd, FromRedisValue, RedisError};

use crate::error::is_foreign;
use crate::gate::{RedisGate, unexpected};

/// Ids in one call, where one call can have many: well below a millisecond of Redis.
const AT_ONCE: usize = 100;

impl RedisGate {
    fn told_key(&self, register: &Register) -> String {
        format!("{}:told:{{{}/{}}}", self.prefix, register.name, register.teller)
    }

    fn reserved_key(&self, register: &Register, id: &[u8]) -> String {
        let mut key = format!("{}:id:{}:", self.prefix, register.name);
        for byte in id {
            // Writing to a text cannot fail.
            let _ = write!(key, "{byte:02x}");
        }
        key
    }

    fn set(&self, register: &Register, reservation: &Reservation, only: &[&str]) -> Cmd {
        let mut command = redis::cmd("SET");
        command.arg(self.reserved_key(register, &reservation.id)).arg(reservation.digest).arg(only);
        command.arg("PXAT").arg(reservation.until.as_millis().max(1));
        command
    }

    async fn set_all<T: FromRedisValue>(
        &self,
        register: &Register,
        ids: &[Reservation],
        only: &[&str],
    ) -> Result<Vec<T>, RedisError> {
        // In a cluster they lie in many slots, and a pipeline sees one.
        let in_one_call = if self.cluster { 1 } else { AT_ONCE };
        let asked = ids.chunks(in_one_call).map(async |some| {
            let mut pipe = redis::pipe();
            for reservation in some {
                pipe.add_command(self.set(register, reservation, only));
            }
            pipe.query_async::<Vec<T>>(&mut self.connection()).await
        });
        Ok(try_join_all(asked).await?.into_iter().flatten().collect())
    }

    /// Takes away what is foreign among these ids, and what the register was told: which ids are gone with them nobody knows, and
    /// whoever tells it finds that nothing was told and tells all of them again.
    async fn heal(&self, register: &Register, ids: &[Reservation]) -> Result<(), GateError> {
        tracing::error!(target: "redis", register = register.name, "the ids of this register were damaged; they are told again");
        // First: nothing is reserved while an id may be missing.
        self.take_away(self.told_key(register)).await?;
        for reservation in ids {
            let key = self.reserved_key(register, &reservation.id);
            let found = redis::cmd("GET").arg(&key).query_async::<Option<u64>>(&mut self.connection()).await;
            match found {
                Err(error) if is_foreign(&error) => self.take_away(key).await?,
                found => drop(self.checked(found).await?),
            }
        }
        Ok(())
    }

    async fn take_away(&self, key: String) -> Result<(), GateError> {
        self.checked(redis::cmd("DEL").arg(key).query_async(&mut self.connection()).await).await
    }

    pub(crate) async fn reserve_all(
        &self,
        register: &Register,
        ids: &[Reservation],
    ) -> Result<Option<Vec<u64>>, GateError> {
        if ids.is_empty() {
            return Ok(Some(Vec::new()));
        }
        // What stood under each id before; nothing: the reservation stands there now.
        let before: Vec<Option<u64>> = match self.set_all(register, ids, &["NX", "GET"]).await {
            Err(error) if is_foreign(&error) => {
                self.heal(register, ids).await?;
                return Ok(None);
            }
            before => self.checked(before).await?,
        };
        if before.len() != ids.len() {
            return Err(unexpected("reserve"));
        }
        // Asked afterwards: what was told completely then, was told when the ids were looked for, or the set was lost in between.
        let mut told = redis::cmd("SCARD");
        told.arg(self.told_key(register));
        let told: u32 = match told.query_async(&mut self.connection()).await {
            Err(error) if is_foreign(&error) => {
                self.heal(register, &[]).await?;
                return Ok(None);
            }
            told => self.checked(told).await?,
        };
        let digests = before.into_iter().zip(ids).map(|(before, asked)| before.unwrap_or(asked.digest));
        Ok((told >= register.partitions).then(|| digests.collect()))
    }

    pub(crate) async fn tell_all(
        &self,
        register: &Register,
        partition: u32,
        ids: &[Reservation],
        complete: bool,
    ) -> Result<(), GateError> {
        // Whatever stands there, of whatever type: somebody asked before the log was told, or a hand was in it.
        self.checked(self.set_all::<()>(register, ids, &[]).await).await?;
        if complete {
            let mut told = redis::cmd("SADD");
            told.arg(self.told_key(register)).arg(partition);
            let mut added = told.query_async::<()>(&mut self.connection()).await;
            if added.as_ref().is_err_and(is_foreign) {
                self.heal(register, &[]).await?;
                added = told.query_async(&mut self.connection()).await;
            }
            self.checked(added).await?;
        }
        Ok(())
    }

    pub(crate) async fn all_told(&self, register: &Register) -> Result<BTreeSet<u32>, GateError> {
        let mut told = redis::cmd("SMEMBERS");
        told.arg(self.told_key(register));
        match told.query_async(&mut self.connection()).await {
            Err(error) if is_foreign(&error) => {
                self.heal(register, &[]).await?;
                Ok(BTreeSet::new())
            }
            told => self.checked(told).await,
        }
    }
}
