//! A deserializer around another one that takes a struct's members by their names alone. `derive(Deserialize)` reads a list
//! as a struct too, by position, so that `["PING",1]` would be a request and `[true,null,"root"]` an admission; and a map
//! takes a key twice and keeps the last. Wrapped in [`Objects`] neither passes, at any depth.
//! A file of its own because it is nothing but passing on. Invariant: what it wraps it wraps whole, so nothing beneath is read
//! unwrapped; what serde keeps aside first (`untagged`, `flatten`, `tag`) would be, so these attributes are not used on what
//! comes from outside (`tests/tidy/main.rs` holds that).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, IntoDeserializer as _, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};

/// What is said of `[]` where an object belongs.
pub const EMPTY_LIST: &str =
    "an empty list [] where an object {} belongs (PHP writes {} for (object)[] and for new stdClass)";

/// Whether an error of [`super::from_str`] says [`EMPTY_LIST`].
#[must_use]
pub fn is_of_empty_list(error: &serde_json::Error) -> bool {
    error.is_data() && error.to_string().starts_with(EMPTY_LIST)
}

/// Reads objects by their members' names, each once.
#[derive(Debug)]
pub struct Objects<D>(D);

impl<D> Objects<D> {
    /// Around `inner`.
    pub const fn new(inner: D) -> Self {
        Self(inner)
    }
}

/// What a visitor has been called for.
#[derive(Clone, Copy)]
enum Kind {
    /// Members by name; a struct's own code refuses one that comes twice.
    Struct,
    /// Members by name, which nobody else compares.
    Map,
    /// Whatever comes, members of objects as in a map.
    Any,
    Other,
}

struct Guard<V>(V, Kind);

macro_rules! pass_on {
    ($($method:ident $kind:ident),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method(Guard(visitor, Kind::$kind))
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Objects<D> {
    type Error = D::Error;

    pass_on! {
        deserialize_any Any, deserialize_bool Other, deserialize_i8 Other, deserialize_i16 Other,
        deserialize_i32 Other, deserialize_i64 Other, deserialize_i128 Other, deserialize_u8 Other,
        deserialize_u16 Other, deserialize_u32 Other, deserialize_u64 Other, deserialize_u128 Other,
        deserialize_f32 Other, deserialize_f64 Other, deserialize_char Other, deserialize_str Other,
        deserialize_string Other, deserialize_bytes Other, deserialize_byte_buf Other, deserialize_option Other,
        deserialize_unit Other, deserialize_seq Other, deserialize_identifier Other, deserialize_ignored_any Other
    }

    /// By `any`, because formats refuse a list here before a visitor could say more of it.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(Guard(visitor, Kind::Map))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit_struct(name, Guard(visitor, Kind::Other))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, Guard(visitor, Kind::Other))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(len, Guard(visitor, Kind::Other))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple_struct(name, len, Guard(visitor, Kind::Other))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, Guard(visitor, Kind::Struct))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_enum(name, variants, Guard(visitor, Kind::Other))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident $of:ty),*) => {$(
        fn $method<E: Error>(self, value: $of) -> Result<V::Value, E> {
            self.0.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Guard<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Kind::Struct | Kind::Map => f.write_str("an object"),
            Kind::Any | Kind::Other => self.0.expecting(f),
        }
    }

    visit! {
        visit_bool bool, visit_i64 i64, visit_i128 i128, visit_u64 u64, visit_u128 u128, visit_f64 f64, visit_char char,
        visit_str &str, visit_borrowed_str &'de str, visit_string String, visit_bytes &[u8],
        visit_borrowed_bytes &'de [u8], visit_byte_buf Vec<u8>
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Objects(inner))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Objects(inner))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<V::Value, A::Error> {
        match self.1 {
            Kind::Any | Kind::Other => self.0.visit_seq(Objects(seq)),
            Kind::Struct | Kind::Map => Err(match seq.next_element::<IgnoredAny>()? {
                None => A::Error::custom(EMPTY_LIST),
                Some(_) => A::Error::invalid_type(Unexpected::Seq, &self),
            }),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let seen = matches!(self.1, Kind::Map | Kind::Any).then(BTreeSet::new);
        self.0.visit_map(Members { map, seen })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Objects(variant))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Objects<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Objects(inner))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Objects(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Objects<A> {
    type Error = A::Error;
    type Variant = Objects<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let (value, variant) = self.0.variant_seed(seed)?;
        Ok((value, Objects(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Objects<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Objects(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, Guard(visitor, Kind::Other))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Guard(visitor, Kind::Struct))
    }
}

/// An object's members on their way; `seen` are the names so far, where nobody else tells them apart.
struct Members<A> {
    map: A,
    seen: Option<BTreeSet<String>>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        match &mut self.seen {
            None => self.map.next_key_seed(seed),
            Some(seen) => self.map.next_key_seed(Name { seed, seen }),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.map.next_value_seed(Objects(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.map.size_hint()
    }
}

/// A member's name, which must be a new one.
struct Name<'s, S> {
    seed: S,
    seen: &'s mut BTreeSet<String>,
}

#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Name<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let Text(name) = Text::deserialize(inner)?;
        if !self.seen.insert(name.clone().into_owned()) {
            return Err(D::Error::custom(format_args!("duplicate field {:.64?}", name.as_ref())));
        }
        match name {
            Cow::Borrowed(name) => self.seed.deserialize(BorrowedStrDeserializer::new(name)),
            Cow::Owned(name) => self.seed.deserialize(name.into_deserializer()),
        }
    }
}
