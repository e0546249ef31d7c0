//! Tests of buckets come below.
