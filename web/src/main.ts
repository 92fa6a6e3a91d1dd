import { mount } from 'svelte';

import App from './App.svelte';
import './app.css';
import { startKeys } from './lib/keys.svelte.ts';
import { startRouter } from './lib/router.svelte.ts';
import { settings } from './lib/settings.svelte.ts';

settings.apply();
startRouter();
startKeys();

const target = document.getElementById('app');
if (target) mount(App, { target });
