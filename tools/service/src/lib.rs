//! What the daemons have in common: how they start in the background, how they say that they are ready, and where they say things.
//!
//! `background` and `notify` come before a daemon's loop, `messages` all the time.

pub mod background;
pub mod messages;
mod notify;
