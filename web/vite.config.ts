import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// The server sends a strict Content-Security-Policy, so nothing may be inlined into the page:
// no preload polyfill, no data: fonts, no style element.
export default defineConfig({
  plugins: [svelte()],
  build: {
    target: 'es2022',
    // `light-dark()`: every browser of 2024 and later.
    cssTarget: ['chrome123', 'firefox120', 'safari17.5'],
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    reportCompressedSize: true,
  },
  server: {
    proxy: { '/api': 'http://127.0.0.1:8470' },
  },
});
