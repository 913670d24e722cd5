"""What a DICOM header says against a frontal chest radiograph. Pure functions on the few tags they name.

Only what is plainly something else is turned away: a tag that is absent, empty or unknown passes, for anonymised files
lack them, and the picture itself is looked at later. No value of a tag is ever quoted unless it is one of the
standard's own words below: a damaged file may hold a patient's name in any of them.
"""

from __future__ import annotations

from collections.abc import Iterable

from cxr_edge.errors import ImageProblem, Reason, Status

PROJECTION_RADIOGRAPHY = frozenset({"CR", "DX", "RG", "RF", "XA", "OT"})
"""Modalities that a chest radiograph may carry (PS3.3, C.7.3.1.1.1): computed and digital radiography, film,
fluoroscopy and angiography rooms, which take plain pictures too, and 'other', as digitisers of film write."""

OTHER_MODALITIES = {
    "AU": "sound",
    "BMD": "bone densitometry",
    "CT": "computed tomography",
    "DOC": "a document",
    "ECG": "an electrocardiogram",
    "ES": "endoscopy",
    "GM": "general microscopy",
    "IO": "an intra-oral radiograph",
    "IVUS": "intravascular ultrasound",
    "KO": "a selection of key objects",
    "MG": "mammography",
    "MR": "magnetic resonance",
    "NM": "nuclear medicine",
    "OP": "ophthalmic photography",
    "OPT": "ophthalmic tomography",
    "PLAN": "a plan",
    "PR": "a presentation state",
    "PT": "positron emission tomography",
    "PX": "a panoramic dental radiograph",
    "REG": "a registration",
    "RTDOSE": "a radiotherapy dose",
    "RTIMAGE": "a radiotherapy image",
    "RTPLAN": "a radiotherapy plan",
    "RTRECORD": "a radiotherapy record",
    "RTSTRUCT": "radiotherapy structures",
    "SEG": "a segmentation",
    "SM": "slide microscopy",
    "SR": "a structured report",
    "US": "ultrasound",
    "XC": "a photograph",
}
"""The standard's words that are named in a sentence; any other modality is turned away without being named."""

NOT_FRONTAL_VIEWS = {
    **dict.fromkeys(("LATERAL", "LAT", "LL", "RL", "LLAT", "RLAT", "LEFT LATERAL", "RIGHT LATERAL"), "a lateral view"),
    **dict.fromkeys(("LAO", "RAO", "LPO", "RPO", "LLO", "RLO", "OBLIQUE"), "an oblique view"),
    **dict.fromkeys(("LLD", "RLD", "DECUBITUS"), "a decubitus view"),
}
"""View Position (0018,5101): PS3.3, C.8.1.2 (CR) and C.8.11.5 (DX), and what consoles write in their place."""

NOT_FRONTAL_CODES = {
    **dict.fromkeys(("399067008", "399198007", "399173006", "399352003", "399260004"), "a lateral view"),
    **dict.fromkeys(("399182000", "399135007", "399356000", "399006002", "399038007"), "an oblique view"),
    **dict.fromkeys(("399236003", "399184004", "260427002", "260426006"), "an oblique view"),
}
"""View Code Sequence (0054,0220), SNOMED CT: PS3.16, CID 4010."""

OTHER_BODY_PARTS = frozenset(
    (
        *("HEAD", "SKULL", "EYE", "ORBIT", "JAW", "MANDIBLE", "MAXILLA", "ZYGOMA", "HEADNECK", "NECK"),
        *("CSPINE", "TSPINE", "LSPINE", "SSPINE", "COCCYX", "BREAST"),
        *("ABDOMEN", "BLADDER", "COLON", "GALLBLADDER", "KIDNEY", "LIVER", "PELVIS", "UTERUS", "BUTTOCK"),
        *("CLAVICLE", "SHOULDER", "ARM", "HUMERUS", "ELBOW", "FOREARM", "RADIUS", "RADIUSULNA", "ULNA"),
        *("WRIST", "HAND", "FINGER", "THUMB"),
        *("HIP", "FEMUR", "LEG", "KNEE", "PATELLA", "CALF", "TIBIA", "TIBFIB", "ANKLE", "CALCANEUS", "FOOT", "TOE"),
    )
)
"""Body Part Examined (0018,0015), of the terms in PS3.16, annex L, those that leave no room for a frontal chest.
RIB, STERNUM, LUNG, HEART and WHOLEBODY do, and free text such as 'CHEST ABDOMEN' is in no list."""


def check_kind(modality: str, sop_class: str, *, holds_pixels: bool) -> None:
    """Refuse what is no projection radiograph, or no picture at all.

    Args:
        modality: Modality (0008,0060) as it stands, or empty.
        sop_class: the standard's name of the SOP Class, or empty where it is absent or private.
        holds_pixels: whether pixels follow. An image without them is cut short, which is no matter of kind.

    Raises:
        ImageProblem: rejected, `not_a_radiograph`.
    """
    modality = modality.strip().upper()
    if modality and modality not in PROJECTION_RADIOGRAPHY:
        words = OTHER_MODALITIES.get(modality)
        sentence = f"its modality is {modality} ({words})" if words else "its modality is no kind of radiography"
        raise ImageProblem(Status.REJECTED, Reason.NOT_A_RADIOGRAPH, f"{sentence}, not a chest radiograph's")
    if sop_class and "Image Storage" not in sop_class and not holds_pixels:
        raise ImageProblem(Status.REJECTED, Reason.NOT_A_RADIOGRAPH, f"a DICOM object without a picture ({sop_class})")


def check_view(view: str, view_codes: Iterable[str], body_part: str) -> None:
    """Refuse what is plainly no frontal view, or no chest.

    Args:
        view: View Position (0018,5101), or empty.
        view_codes: Code Values of the View Code Sequence (0054,0220).
        body_part: Body Part Examined (0018,0015), or empty.

    Raises:
        ImageProblem: rejected, `not_a_frontal_chest`.
    """
    view = " ".join(view.upper().replace("_", " ").split())
    found = NOT_FRONTAL_VIEWS.get(view) or next(filter(None, map(NOT_FRONTAL_CODES.get, view_codes)), None)
    if found:
        raise ImageProblem(Status.REJECTED, Reason.NOT_A_FRONTAL_CHEST, f"its header says that it is {found}")
    part = "".join(character for character in body_part.upper() if character.isalpha())
    if part in OTHER_BODY_PARTS:
        sentence = f"its header says that it shows another part of the body ({part})"
        raise ImageProblem(Status.REJECTED, Reason.NOT_A_FRONTAL_CHEST, sentence)
