import { mount } from 'svelte';

import App from './App.svelte';
import './styles/tokens.css';
import './styles/base.css';
import './styles/parts.css';
import { ahead } from './lib/ahead.ts';
import { startKeys } from './lib/keys.svelte.ts';
import { place, startRouter } from './lib/router.svelte.ts';
import { settings } from './lib/settings.svelte.ts';

ahead(place.now);
settings.apply();
startRouter();
startKeys();

const target = document.getElementById('app');
if (target) mount(App, { target });
