// The verbs against real mounts, by the command line: what they say (--json and text), what they do, and their
// exit codes; and the same of an overlay that is not mounted.
import * as fs from 'node:fs';
import { describe, expect, test } from 'vitest';
import { kasane, withLayers, withMount } from '../lib/kasane.ts';
import { testNeeding } from '../lib/needs.ts';
import { BaseWatch, type Guest, guestOf, text, withGuest, writeFiles } from '../lib/versioning.ts';

const fuseTest = testNeeding(['root', 'fuse']);
void test;
void fuseTest;
void describe;
