// In each test file: nothing stays mounted, whatever became of the test.
import { afterAll } from 'vitest';
import { cleanUpAll } from './lib/cleanup.ts';

afterAll(cleanUpAll);
