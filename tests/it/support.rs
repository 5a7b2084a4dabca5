//! The harness: everything a test needs around the node, in words that read like English.
//!
//! Must not know: any type of the `inlet` crate. It meets the product where users and other systems do: at its
//! command line, its configuration file, its HTTP listeners and in MongoDB.

#![allow(
    dead_code,
    reason = "the harness offers the whole vocabulary; not every run of the tests uses every word"
)]

pub(crate) mod aiosmtpd;
pub(crate) mod clock;
pub(crate) mod extended;
pub(crate) mod fcm;
pub(crate) mod graph;
pub(crate) mod http;
pub(crate) mod listener;
pub(crate) mod load;
pub(crate) mod mongod;
pub(crate) mod names;
pub(crate) mod node;
pub(crate) mod openmetrics;
pub(crate) mod outcomes;
pub(crate) mod pace;
pub(crate) mod pip;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod providers;
pub(crate) mod reference;
pub(crate) mod scene;
pub(crate) mod scripted;
pub(crate) mod smtp;
pub(crate) mod submission;
pub(crate) mod token;
pub(crate) mod traffic;
pub(crate) mod truth;
pub(crate) mod twilio;
pub(crate) mod wait;
pub(crate) mod web;
pub(crate) mod wire;
