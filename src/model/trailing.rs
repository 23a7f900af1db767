//! Fields that came later: written only where they are given, so that a record without them has the bytes, and the
//! hash, that it had before there were any.
//!
//! Records are written by the places of their fields, so only fields at the end can be left out, and only from
//! the last one backwards: were one left out in the middle, the next would be read in its place. serde's
//! `skip_serializing_if` looks at one field at a time and can't see that; this macro does. Reading needs
//! nothing but `#[serde(default)]` on each such field.

use thin_vec::ThinVec;

/// As if it were not there.
pub(crate) trait Unset {
    fn is_unset(&self) -> bool;
}

impl<T> Unset for Option<T> {
    fn is_unset(&self) -> bool {
        self.is_none()
    }
}

impl Unset for bool {
    fn is_unset(&self) -> bool {
        !*self
    }
}

impl<T> Unset for ThinVec<T> {
    fn is_unset(&self) -> bool {
        self.is_empty()
    }
}

/// `Serialize` for a struct of which all fields are named: those of its first release, then those that came
/// later, in the order of the declaration. A field that `serde_bytes` reads is named as `field: bytes`.
macro_rules! positional {
    (@value $field:ident) => { $field };
    // Written as one run of bytes, as `serde_bytes` does it.
    (@value $field:ident bytes) => { serde_bytes::Bytes::new($field) };
    ($record:ident { $($field:ident $(: $form:ident)?),+ } later { $($later:ident),+ }) => {
        impl serde::Serialize for $record {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeStruct as _;
                use $crate::trailing::Unset as _;

                let $record { $($field,)+ $($later,)+ } = self;
                let unset = [$($later.is_unset()),+];
                let given = unset.iter().rposition(|unset| !unset).map_or(0, |last| last + 1);
                let always = [$(stringify!($field)),+].len();
                let mut record =
                    serializer.serialize_struct(stringify!($record), always + given)?;
                $({
                    let value = $crate::trailing::positional!(@value $field $($form)?);
                    record.serialize_field(stringify!($field), value)?;
                })+
                let mut places = 0..given;
                $(if places.next().is_some() {
                    record.serialize_field(stringify!($later), $later)?;
                })+
                record.end()
            }
        }
    };
}

pub(crate) use positional;

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    /// As the release before had it.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Before {
        id: u8,
        name: String,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Now {
        id: u8,
        name: String,
        #[serde(default)]
        first: Option<u8>,
        #[serde(default)]
        second: Option<u8>,
    }

    positional!(Now { id, name } later { first, second });

    fn now(first: Option<u8>, second: Option<u8>) -> Now {
        let name = "n".to_owned();
        Now {
            id: 7,
            name,
            first,
            second,
        }
    }

    fn encode(value: &impl Serialize) -> Vec<u8> {
        rmp_serde::to_vec(value).unwrap()
    }

    #[test]
    fn a_record_without_what_came_later_has_the_bytes_that_it_had_before() {
        let before = Before {
            id: 7,
            name: "n".to_owned(),
        };
        assert_eq!(encode(&now(None, None)), encode(&before));
        let read: Now = rmp_serde::from_slice(&encode(&before)).unwrap();
        assert_eq!(read, now(None, None));
    }

    #[test]
    fn each_field_is_read_in_its_own_place_whichever_of_them_are_given() {
        for first in [None, Some(1)] {
            for second in [None, Some(2)] {
                let written = encode(&now(first, second));
                let read: Now = rmp_serde::from_slice(&written).unwrap();
                assert_eq!(read, now(first, second));
            }
        }
    }

    #[test]
    fn a_record_with_more_than_is_known_is_not_read() {
        for (first, second) in [(Some(1), None), (None, Some(2)), (Some(1), Some(2))] {
            let written = encode(&now(first, second));
            assert!(rmp_serde::from_slice::<Before>(&written).is_err());
        }
    }
}
