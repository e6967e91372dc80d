//! Keys as JSON: <https://www.rfc-editor.org/rfc/rfc7517>.

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{KeyPairComponents, PublicEncryptingKey, PublicKeyComponents};
use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use outrider_components::Error;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::key::{Curve, Ec, Ed25519, Key, Material, Rsa, Terms};
use crate::{Refusal, rsa};

type Bytes = Zeroizing<Vec<u8>>;

fn invalid(what: &str) -> Error {
    Error::invalid(format!("the JWK is not valid: {what}"))
}

/// Reads one key.
pub fn parse(text: &[u8]) -> Result<Key, Error> {
    let json: Value = serde_json::from_slice(text).map_err(|_| invalid("it is no JSON"))?;
    of_json(&json)
}

/// The keys of a set; what is none that is known is left out.
pub fn parse_set(text: &[u8]) -> Result<Vec<Key>, Error> {
    let json: Value = serde_json::from_slice(text).map_err(|_| invalid("it is no JSON"))?;
    match json.get("keys") {
        Some(Value::Array(keys)) => Ok(keys.iter().filter_map(|key| of_json(key).ok()).collect()),
        Some(_) => Err(invalid("keys is no list")),
        // One key is a set of one.
        None => Ok(vec![of_json(&json)?]),
    }
}

fn of_json(json: &Value) -> Result<Key, Error> {
    let object = json.as_object().ok_or_else(|| invalid("it is no object"))?;
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let material = match text("kty") {
        Some("oct") => Material::Symmetric(needed(object, "k")?),
        Some("RSA") => Material::Rsa(rsa_of(object)?),
        Some("EC") => Material::Ec(ec_of(object)?),
        Some("OKP") if text("crv") == Some("Ed25519") => Material::Ed25519(ed25519_of(object)?),
        _ => return Err(invalid("no such type of key")),
    };
    let operations = object.get("key_ops").and_then(Value::as_array);
    let operations = operations.into_iter().flatten().filter_map(Value::as_str);
    let given = |name: &str| {
        text(name)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    Ok(Key {
        material,
        terms: Terms {
            id: given("kid"),
            usage: given("use"),
            operations: operations.map(str::to_owned).collect(),
            algorithm: given("alg"),
        },
    })
}

fn member(object: &Map<String, Value>, name: &str) -> Result<Option<Bytes>, Error> {
    let Some(value) = object.get(name) else {
        return Ok(None);
    };
    let text = value
        .as_str()
        .ok_or_else(|| invalid("a member is no text"))?;
    let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
    let bytes = bytes.map_err(|_| invalid("a member is not base64url"))?;
    Ok(Some(Zeroizing::new(bytes)))
}

fn needed(object: &Map<String, Value>, name: &str) -> Result<Bytes, Error> {
    let found = member(object, name)?.filter(|bytes| !bytes.is_empty());
    found.ok_or_else(|| invalid(&format!("{name} is missing")))
}

/// Without zeros at its front, which the library takes for a mistake.
fn number(mut bytes: Bytes) -> Bytes {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.drain(..zeros);
    bytes
}

fn rsa_of(object: &Map<String, Value>) -> Result<Rsa, Error> {
    let public_key = PublicKeyComponents {
        n: number(needed(object, "n")?).to_vec(),
        e: number(needed(object, "e")?).to_vec(),
    };
    rsa::check_size(public_key.n.len())?;
    let Some(d) = member(object, "d")? else {
        let der = public_key
            .as_der()
            .map_err(|_| invalid("it is no RSA key"))?;
        let public = PublicEncryptingKey::from_der(der.as_ref());
        return Ok(Rsa {
            public: public.map_err(|_| invalid("it is no RSA key"))?,
            private: None,
        });
    };
    let components = KeyPairComponents {
        public_key,
        d: d.to_vec(),
        p: needed(object, "p")?.to_vec(),
        q: needed(object, "q")?.to_vec(),
        dP: needed(object, "dp")?.to_vec(),
        dQ: needed(object, "dq")?.to_vec(),
        qInv: needed(object, "qi")?.to_vec(),
    };
    let pair = RsaKeyPair::from_components(&components);
    let pair = pair.map_err(|_| invalid("it is no RSA key"))?;
    Rsa::of_private(pair).map_err(Error::from)
}

fn ec_of(object: &Map<String, Value>) -> Result<Ec, Error> {
    let name = object.get("crv").and_then(Value::as_str);
    let curve = Curve::ALL.into_iter().find(|c| Some(c.name()) == name);
    let curve = curve.ok_or_else(|| invalid("no such curve"))?;
    let coordinate = |name| -> Result<Vec<u8>, Error> { padded(&needed(object, name)?, curve) };
    let mut point = vec![4];
    point.extend(coordinate("x")?);
    point.extend(coordinate("y")?);
    let wrong = |_| invalid("it is no key of its curve");
    let Some(d) = member(object, "d")? else {
        let public = UnparsedPublicKey::new(curve.verifying(), &point);
        public.parse().map_err(wrong)?;
        return Ok(Ec {
            curve,
            point,
            private: None,
        });
    };
    let d = Zeroizing::new(padded(&d, curve)?);
    let pair = EcdsaKeyPair::from_private_key_and_public_key(curve.signing(), &d, &point);
    Ok(Ec::of_private(curve, pair.map_err(wrong)?))
}

fn padded(bytes: &[u8], curve: Curve) -> Result<Vec<u8>, Error> {
    let missing = curve.size().checked_sub(bytes.len());
    let missing = missing.ok_or_else(|| invalid("a coordinate is too long"))?;
    let mut padded = vec![0; missing];
    padded.extend_from_slice(bytes);
    Ok(padded)
}

fn ed25519_of(object: &Map<String, Value>) -> Result<Ed25519, Error> {
    let public = needed(object, "x")?;
    match member(object, "d")? {
        Some(seed) => {
            let pair = Ed25519KeyPair::from_seed_and_public_key(&seed, &public);
            let pair = pair.map_err(|_| invalid("it is no Ed25519 key"))?;
            Ed25519::of_private(pair).map_err(Error::from)
        }
        None => Ok(Ed25519 {
            public: public[..]
                .try_into()
                .map_err(|_| invalid("it is no Ed25519 key"))?,
            private: None,
        }),
    }
}

/// The public half.
pub fn public(key: &Key) -> Result<String, Refusal> {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let mut json = match &key.material {
        Material::Symmetric(_) => return Err(Refusal::KeyType),
        Material::Rsa(rsa) => {
            let (n, e) = rsa::components(&rsa.public)?;
            json!({"kty": "RSA", "n": encode(&n), "e": encode(&e)})
        }
        Material::Ec(ec) => {
            let (x, y) = ec
                .point
                .get(1..)
                .and_then(|point| point.split_at_checked(ec.curve.size()))
                .ok_or(Refusal::KeyType)?;
            json!({"kty": "EC", "crv": ec.curve.name(), "x": encode(x), "y": encode(y)})
        }
        Material::Ed25519(key) => {
            json!({"kty": "OKP", "crv": "Ed25519", "x": encode(&key.public)})
        }
    };
    let Terms {
        id,
        usage,
        operations,
        algorithm,
    } = &key.terms;
    for (name, value) in [("kid", id), ("use", usage), ("alg", algorithm)] {
        if let Some(value) = value {
            json[name] = value.clone().into();
        }
    }
    if !operations.is_empty() {
        json["key_ops"] = operations.clone().into();
    }
    Ok(json.to_string())
}
