"""Formulas of the site as MathML, which browsers draw by themselves: no script, no fonts, no network."""

from downslope.pages.mathml import mathml


def _inline(self, node):
    self.body.append(mathml(node.astext()).replace('display="block"', 'display="inline"'))
    raise_skip()


def _block(self, node):
    self.body.append(f'<div class="math">{mathml(node.astext())}</div>')
    raise_skip()


def raise_skip():
    """The children of a formula are its source, which is not shown too."""
    from docutils.nodes import SkipNode

    raise SkipNode


def setup(app):
    """Offer the renderer under the name `mathml`."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
