//! Interrupt moderation through the control queue (virtio 1.3, 5.1.6.5.8).

use hematite_driver::{CoalesceParam, DeviceFault, Error, State};
use virtio_spec::net::F;

use crate::model::{Model, Settings, card_features};
use crate::seeded;
use hematite_driver::{Options, VirtioNet};

const SET: CoalesceParam = CoalesceParam {
    rx_usecs: 1,
    rx_max_frames: 2,
    tx_usecs: 3,
    tx_max_frames: 4,
    adaptive_rx: false,
};

/// An interface that is down.
fn down(settings: Settings) -> VirtioNet<Model> {
    VirtioNet::probe(Model::new(settings, seeded()), Options::default()).unwrap()
}

#[test]
fn what_is_set_arrives_can_be_read_and_survives_a_reset() {
    let mut net = down(Settings::default());
    assert_eq!(net.device_coalesce(), Ok(CoalesceParam::default()));
    net.set_coalesce(SET).unwrap();
    assert_eq!(net.function().coalesce[..2], [(2, 1), (4, 3)]);
    assert_eq!(net.device_coalesce(), Ok(SET));
    net.reset_and_restore().unwrap();
    assert_eq!((net.coalesce(), net.device_coalesce()), (SET, Ok(SET)));
    net.set_queue_coalesce(0, 9, 8).unwrap();
    assert_eq!(net.function().coalesce[0], (9, 8));
    assert_eq!(net.function().violations, Vec::<String>::new());
}

#[test]
fn a_refusal_is_an_error_and_nothing_more() {
    let mut net = down(Settings::default());
    net.set_coalesce(SET).unwrap();
    let refused = |command| Error::ControlRefused { class: 6, command };
    net.function().refuse = true;
    assert_eq!(net.set_queue_coalesce(0, 1, 1), Err(refused(2)));
    assert_eq!(net.set_coalesce(CoalesceParam::default()), Err(refused(1)));
    // The device wrote something into the answer all the same.
    assert_eq!(net.device_coalesce(), Err(refused(3)));
    assert_eq!((net.state(), net.coalesce()), (&State::Down, SET));
    net.function().refuse = false;
    assert_eq!(net.device_coalesce(), Ok(SET));
}

#[test]
fn a_queue_that_is_not_in_use_is_refused_here() {
    let mut net = down(Settings::default());
    for queue in [2, 3, u16::MAX] {
        let refused = net.set_queue_coalesce(queue, 1, 1);
        assert_eq!(refused, Err(Error::QueueMissing { queue }));
    }
    assert_eq!(net.function().doorbells[2], 0, "a command was sent");
    assert_eq!(*net.state(), State::Down);
}

#[test]
fn a_device_without_it_says_so() {
    let features = card_features() & !F::NOTF_COAL & !F::VQ_NOTF_COAL;
    for features in [features, features & !F::CTRL_VQ] {
        let settings = Settings {
            features,
            ..Settings::default()
        };
        let mut net = down(settings);
        assert!(matches!(net.set_coalesce(SET), Err(Error::NotSupported(_))));
        assert!(matches!(net.device_coalesce(), Err(Error::NotSupported(_))));
        assert_eq!(*net.state(), State::Down);
    }
}

#[test]
fn no_answer_fails_the_device_and_its_reset_brings_it_back() {
    let mut net = down(Settings::default());
    net.function().mute = true;
    let fault = DeviceFault::ControlTimeout;
    assert_eq!(net.set_coalesce(SET), Err(Error::Device { queue: 2, fault }));
    assert!(matches!(net.state(), State::Failed(_)));
    net.function().mute = false;
    net.reset_and_restore().unwrap();
    net.set_coalesce(SET).unwrap();
    assert_eq!(net.function().coalesce[..2], [(2, 1), (4, 3)]);
}
