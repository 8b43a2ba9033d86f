# SPDX-License-Identifier: Apache-2.0
from hiface.app.html import viewer_page, write_viewer_page

__all__ = ["viewer_page", "write_viewer_page"]
