"""The same tests with unittest: `python -m unittest test_shop_unittest`."""

from __future__ import annotations

import os
import unittest
from unittest.mock import patch

from shop import picture

from fluxwerk.testing import local_server


class ShopTest(unittest.TestCase):
    """A server for all tests of the class; each begins without trouble and without requests."""

    @classmethod
    def setUpClass(cls) -> None:
        """Start the server, and lead `Client()` to it."""
        cls.server = cls.enterClassContext(local_server())
        cls.enterClassContext(patch.dict(os.environ, cls.server.environment))

    def setUp(self) -> None:
        """Forget the test before."""
        self.server.forget()

    def test_a_product_has_a_picture(self) -> None:
        """The prompt reaches the server, and the image the shop."""
        self.assertTrue(picture("a red mug"))
        self.assertEqual([one.prompt for one in self.server.submits], ["A studio photo of a red mug"])

    def test_a_product_that_is_moderated_has_none(self) -> None:
        """The shop goes on without a picture."""
        self.server.trouble(on="submit", do="moderate")
        self.assertIsNone(picture("a red mug"))


if __name__ == "__main__":
    unittest.main()
