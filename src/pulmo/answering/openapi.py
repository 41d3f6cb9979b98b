"""The part of the OpenAPI document on `POST /v1/predict`, with an example."""

from typing import Any

_RATE = {"value": 0.944, "low": 0.873, "high": 0.992}
_EXAMPLE = {
    "films": [
        {
            "film": "person100.jpeg",
            "decision": "Called PNEUMONIA",
            "worth": "Measured on test films: of 100 with pneumonia it finds 94 (87 to 99), "
            "of 100 without it calls 12 (5 to 20) ill",
            "answer": {
                "label": "PNEUMONIA",
                "prob_pneumonia": 0.997,
                "threshold": 0.824,
                "sensitivity": _RATE,
                "specificity": {"value": 0.882, "low": 0.8, "high": 0.95},
                "unsure": False,
                "not_a_chest_film": None,
                "unlike_training": False,
                "note": "",
                "logit": 1.07,
                "model": {"name": "faster", "version": "1", "sha256": "38ad8985…"},
                "anyway": False,
            },
        },
        {
            "film": "notes.txt",
            "problem": {
                "type": "about:blank",
                "title": "Unprocessable Entity",
                "status": 422,
                "detail": "not an image or DICOM file",
            },
        },
    ],
    "not_a_medical_device": True,
}
_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["films"],
                "properties": {"films": {"type": "array", "items": {"type": "string", "format": "binary"}}},
            }
        }
    },
}
_REFUSALS = {
    "400": "the body holds no films",
    "401": "the token is missing or wrong",
    "408": "the request took too long to arrive",
    "413": "too large, or too many films",
    "429": "too many requests are under way",
    "501": "DICOM was asked for, and the server was installed without it",
}
PREDICT: dict[str, Any] = {
    "requestBody": _BODY,
    "responses": {
        "200": {
            "description": "an answer or a problem for each film",
            "content": {"application/json": {"example": _EXAMPLE}},
        },
        **{
            status: {"description": reason, "content": {"application/problem+json": {}}}
            for status, reason in _REFUSALS.items()
        },
    },
}
