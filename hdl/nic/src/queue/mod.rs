//! Packed virtqueues: descriptor fetch, receive, transmit, used write-back, notification.
