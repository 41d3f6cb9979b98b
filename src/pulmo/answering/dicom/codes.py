"""The coded concepts of a report. Each was looked up in its scheme; a concept without a fitting code is text."""

from highdicom.coding_schemes import CodingSchemeIdentificationItem, CodingSchemeResourceItem
from pydicom.sr.coding import Code

RADIOGRAPHY = Code("43468-8", "LN", "XR unspecified body region")  # CID 100, which has no chest film
DEVICE = Code("121007", "DCM", "Device")
PNEUMONIA = Code("233604007", "SCT", "Pneumonia")
LUNG = Code("39607008", "SCT", "Lung")

# CID 240
PRESENT = Code("52101004", "SCT", "Present")
ABSENT = Code("272519000", "SCT", "Absent")
UNDETERMINED = Code("373068000", "SCT", "Undetermined")

# The likelihood that a finding is of the type that was identified; in percent, as CAD reports have it
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
PERCENT = Code("%", "UCUM", "Percent")

# DICOM's own codes for sensitivity and specificity, 111088 to 111091, are defined for cancer
SENSITIVITY = Code("OBCS_0000058", "99OBCS", "Sensitivity")
SPECIFICITY = Code("OBCS_0000059", "99OBCS", "Specificity")
UPPER_RANGE = Code("371886008", "SCT", "+, range of upper measurement uncertainty")
LOWER_RANGE = Code("371885007", "SCT", "-, range of lower measurement uncertainty")

# CID 6047
SUMMARY = Code("111017", "DCM", "CAD Processing and Findings Summary")
WITH_FINDINGS = Code("111242", "DCM", "All algorithms succeeded; with findings")
WITHOUT_FINDINGS = Code("111241", "DCM", "All algorithms succeeded; without findings")
NO_SUCCESS = Code("111245", "DCM", "No algorithms succeeded; without findings")

COMMENT = Code("121106", "DCM", "Comment")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")


def list_schemes() -> list[CodingSchemeIdentificationItem]:
    """The coding schemes that DICOM does not list, for the reports that use them."""
    resource = CodingSchemeResourceItem("http://purl.obolibrary.org/obo/obcs.owl", "OWL")
    name = "Ontology of Biological and Clinical Statistics"
    return [CodingSchemeIdentificationItem("99OBCS", name=name, resources=[resource])]
