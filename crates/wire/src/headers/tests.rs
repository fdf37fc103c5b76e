//! Tests of the headers, by subject.

mod param_headers;
mod standard;
mod value;
