//! Real servers for tests: plain children on free ports of 127.0.0.1, ended by pid.
