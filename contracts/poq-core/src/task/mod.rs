//! The life of a task: its record, what its clock says, and what moves it on. Pure functions of `(record, input, now)`: the
//! contract stores what they return, moves the money and emits the events; the simulator drives the same records.

pub mod clock;
pub mod penalties;
pub mod records;
pub mod transitions;

pub use clock::{Clock, Phase, Step};
pub use records::{
    Commit, Draw, Opened, OutputSlot, OutputState, Request, Reveal, Seat, SeatState, Source, Task, TaskInput,
    Terms,
};
pub use transitions::Refusal;
