"""Fixed bytes of a manifest. The PyPI packages dag-cbor and multiformats read and wrote them to the same bytes and CID."""

from bahefl_flwr.records import ObjectKind
from bahefl_flwr.store import Manifest, manifest_for, part_cid
from bahefl_flwr.store.dag_cbor import encode
from bahefl_flwr.store.manifest import manifest_cid, part_ref

ENCODED = bytes.fromhex(
    "a86176016372756e5820000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f646b696e64667570646174656473697465"
    "782a3078353239303834303030393835323738383645304637303330303639383537443245343136394545376565706f6368026570617274738"
    "2d82a58250001551220686976f5a00b4a60a14abf9a2249c3484fb22d770b2ad8065156e4a996b12862d82a5825000155122016367aacb67a4a01"
    "7c8da8ab95682ccb390863780f7114dda0a0e0c55644c7c465726f756e6419012c6573697a6573820a06"
)
CID = "bafyreig64f46hohu47dqmt24nz3gyr4ezwtyda6ughnrl763lztaqjapji"


def test_encoding_and_cid_are_those_of_release_1() -> None:
    """A manifest has the same bytes, digest and CID for ever."""
    manifest = manifest_for(
        [b"first part", b"second"],
        run=bytes(range(32)),
        round=300,
        site="0x52908400098527886E0F7030069857D2E4169EE7",
        epoch=2,
        kind=ObjectKind.UPDATE,
    )
    assert manifest.encode() == ENCODED
    assert manifest.cid == CID
    assert [part.cid for part in manifest.parts] == [
        "bafkreidinf3plialjjqkcsv7tiretq2ij6zc25ylflmamukw4suznmjimi",
        "bafkreiawgz5kznt2jiaxzdnivokwqlglheegg6apoekn3ifa4dcvmrghyq",
    ]


def test_release_1_bytes_are_read() -> None:
    """Manifests of the first release stay readable."""
    manifest = Manifest.decode(ENCODED)
    assert (manifest.round, manifest.epoch, manifest.kind, manifest.size_bytes) == (300, 2, ObjectKind.UPDATE, 16)


def test_cids_are_those_of_the_ipfs_documentation() -> None:
    """The CIDs of the empty DAG-CBOR map and of the text "hello" (no newline) are those that every IPFS tool prints."""
    assert manifest_cid(part_ref(encode({})).digest) == "bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua"
    assert part_cid(part_ref(b"hello").digest) == "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq"
