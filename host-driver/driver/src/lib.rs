//! virtio-net driver: packed virtqueues and NAPI
