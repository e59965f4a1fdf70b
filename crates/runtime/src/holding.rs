//! Whether what something was decided on holds (R2), found out while what was decided is being written.

use std::sync::Arc;

use connector_domain::ids::{OrganizationId, UserId};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio_util::task::AbortOnDropHandle;

use crate::failure::Failure;
use crate::tail::{Read, Tail};

/// What situations were read from, one after the other: whose they are, and the streams with the positions of their views.
pub struct Basis(pub(crate) Vec<(OrganizationId, UserId, Vec<Read>)>);

/// One answer for each situation. Nobody asks any more when the last clone is gone.
#[derive(Clone)]
pub struct Holding(Shared<BoxFuture<'static, Arc<[bool]>>>);

impl Holding {
    /// The question is on its way before anybody waits for its answer.
    pub(crate) fn ask(tail: Tail, basis: Basis) -> Self {
        Self::of(async move { hold(&tail, &basis).await })
    }

    /// Whatever else decisions stand on: one answer for each.
    pub fn of(question: impl Future<Output = Result<Vec<bool>, Failure>> + Send + 'static) -> Self {
        let asked = AbortOnDropHandle::new(tokio::spawn(question));
        let answers = async move {
            match asked.await {
                Ok(Ok(answers)) => answers.into(),
                Ok(Err(failure)) => nothing(&failure),
                Err(error) => nothing(&error),
            }
        };
        Self(answers.boxed().shared())
    }

    /// What holds here and there, place by place. Both questions are on their way already.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let both = async move {
            let (here, there) = futures::join!(self.0, other.0);
            here.iter().zip(there.iter()).map(|(here, there)| *here && *there).collect()
        };
        Self(both.boxed().shared())
    }

    /// Whether the situation at this place of the basis holds. What could not be asked does not.
    pub async fn holds(self, at: usize) -> bool {
        self.0.await.get(at).copied().unwrap_or(false)
    }
}

fn nothing(reason: &dyn std::fmt::Display) -> Arc<[bool]> {
    tracing::debug!(%reason, "whether anything holds could not be asked");
    Arc::from([])
}

/// Up to the ends of log and directory as of this call.
async fn hold(tail: &Tail, Basis(basis): &Basis) -> Result<Vec<bool>, Failure> {
    let read: Vec<Read> = basis.iter().flat_map(|(_, _, read)| read.clone()).collect();
    let partitions: Vec<u32> = read.iter().map(|read| read.partition).collect();
    let users: Vec<_> = basis.iter().map(|(organization, user, _)| (organization, user)).collect();
    let moment = tail.moment(partitions).await?;
    let told = tail.told_of(&moment, users).await?;
    let mut answers = tail.settled(&moment, &read).await?.into_iter();
    // All of them are looked at: each takes its own answers.
    let settled =
        |(_, _, read): &(_, _, Vec<Read>)| read.iter().fold(true, |all, _| answers.next().unwrap_or(false) && all);
    let settled: Vec<bool> = basis.iter().map(settled).collect();
    Ok(settled.into_iter().zip(told).map(|(settled, told)| settled && told).collect())
}
