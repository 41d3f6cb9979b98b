"""The page that `dvc plots` fills, with the scripts of its charts inside, so that it needs no network."""

from importlib.resources import files

VEGA_LITE = "5.8"  # the version that DVC's chart templates are written for, or one that reads them


def plots_page() -> str:
    """The HTML template for DVC's `plots.html_template`, with Vega, Vega-Lite and Vega-Embed inside."""
    from vl_convert import javascript_bundle

    template = files("pulmo.reporting").joinpath("templates/dvc_plots.html").read_text(encoding="utf-8")
    bundle = javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    scripts = bundle.replace("</script", r"<\/script")
    return template.replace("VEGA_SCRIPTS", scripts)
