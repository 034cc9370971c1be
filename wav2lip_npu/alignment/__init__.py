"""How far sound and lips are apart: from the mouth's shape, or by a lip-sync expert."""
