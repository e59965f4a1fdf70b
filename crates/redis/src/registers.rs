//! Ids that are reserved once over all partitions. Each id is a key of its own with an end, in the slot its name falls into; which
//! partitions were told is one set per register and teller, lost together with the ids when Redis is emptied.

use std::collections::BTreeSet;
use std::fmt::Write;

use connector_ports::gate::{GateError, Register, Reservation};
use futures::future::try_join_all;
use redis::{Cmd, RedisError};

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

    fn set(&self, register: &Register, reservation: &Reservation) -> Cmd {
        let mut command = redis::cmd("SET");
        command.arg(self.reserved_key(register, &reservation.id)).arg(reservation.digest).arg("NX").arg("GET");
        command.arg("PXAT").arg(reservation.until.as_millis().max(1));
        command
    }

    /// What stood under each id before; `None`: nothing, and the reservation stands there now.
    async fn set_all(&self, register: &Register, ids: &[Reservation]) -> Result<Vec<Option<u64>>, RedisError> {
        // In a cluster they lie in many slots, and a pipeline sees one.
        let in_one_call = if self.cluster { 1 } else { AT_ONCE };
        let asked = ids.chunks(in_one_call).map(async |some| {
            let mut pipe = redis::pipe();
            for reservation in some {
                pipe.add_command(self.set(register, reservation));
            }
            pipe.query_async::<Vec<Option<u64>>>(&mut self.connection()).await
        });
        Ok(try_join_all(asked).await?.into_iter().flatten().collect())
    }

    pub(crate) async fn reserve_all(
        &self,
        register: &Register,
        ids: &[Reservation],
    ) -> Result<Option<Vec<u64>>, GateError> {
        if ids.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let before = match self.set_all(register, ids).await {
            // A key that holds something else was put there by hand: what else is missing nobody knows.
            Err(error) if error.code() == Some("WRONGTYPE") => {
                let mut gone = redis::cmd("DEL");
                gone.arg(self.told_key(register));
                self.checked::<()>(gone.query_async(&mut self.connection()).await).await?;
                for reservation in ids {
                    let mut gone = redis::cmd("DEL");
                    gone.arg(self.reserved_key(register, &reservation.id));
                    self.checked::<()>(gone.query_async(&mut self.connection()).await).await?;
                }
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
        let told: u32 = self.checked(told.query_async(&mut self.connection()).await).await?;
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
        self.checked(self.set_all(register, ids).await).await?;
        if complete {
            let mut told = redis::cmd("SADD");
            told.arg(self.told_key(register)).arg(partition);
            self.checked::<()>(told.query_async(&mut self.connection()).await).await?;
        }
        Ok(())
    }

    pub(crate) async fn all_told(&self, register: &Register) -> Result<BTreeSet<u32>, GateError> {
        let mut told = redis::cmd("SMEMBERS");
        told.arg(self.told_key(register));
        self.checked(told.query_async(&mut self.connection()).await).await
    }
}
