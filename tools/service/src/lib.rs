//! What the daemons have in common: their command line, how they start in the background, how they say that they are ready, where they
//! say things, and the indices of the rings that they share with domains.
//!
//! `arguments`, `background` and `notify` come before a daemon's loop, `index` and `messages` all the time.

pub mod arguments;
pub mod background;
pub mod index;
pub mod messages;
mod notify;
