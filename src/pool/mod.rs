//! Pools of server connections: one for each execution and upstream.
//!
//! [`gate`] decides who gets a server connection and when one is dialled or closed; it knows
//! neither sockets nor clocks. [`lender`] carries that out on real connections (`ledger` is what it knows,
//! `errands` what takes time, `news` what is told of it, `reach` whether the databases are there, [`pause`] what an operator asks for), `stock` keeps the idle ones, and [`checkout`] is what a session gets.

pub mod barrier;
pub mod checkout;
pub mod dialer;
mod errands;
pub mod gate;
pub mod key;
mod ledger;
pub mod lender;
mod news;
pub mod pause;
mod reach;
pub mod shortage;
mod stock;

pub use barrier::{Cancelled, Canceller};
pub use checkout::{Checkout, Returned};
pub use dialer::{Target, Upkeep};
pub use gate::{Counts, Flow};
pub use key::{Key, KeySpec, Profile};
pub use lender::{Lender, Refused};
pub use pause::Paused;
pub use shortage::{Limit, Pressure, Queue, Shortage};

/// One generation of an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExecutionNumber(pub u64);

/// A configured upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamNumber(pub u32);

/// A pool: an execution's server connections to one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId {
    /// Whose.
    pub execution: ExecutionNumber,
    /// To which upstream.
    pub upstream: UpstreamNumber,
}

impl ExecutionNumber {
    /// Nobody's: executions are numbered from 1.
    pub const RESERVE: Self = Self(0);
}

impl PoolId {
    /// Where idle connections to an upstream wait for whoever needs one: they belong to no
    /// execution.
    #[must_use]
    pub fn reserve(upstream: UpstreamNumber) -> Self {
        Self {
            execution: ExecutionNumber::RESERVE,
            upstream,
        }
    }

    /// Whether it is a reserve.
    #[must_use]
    pub fn is_reserve(&self) -> bool {
        self.execution == ExecutionNumber::RESERVE
    }
}

/// What makes server connections of a pool interchangeable: database and startup parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub u32);

/// A session that waits for a checkout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WaiterId(pub u64);

/// How many server connections a pool may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// That many may stay open idle.
    pub size: usize,
    /// That many more while in use.
    pub overflow: usize,
}
