import jsdoc from "eslint-plugin-jsdoc";
import tseslint from "typescript-eslint";

/** What has to have a comment that says what it is. */
function documented(...more) {
  return {
    publicOnly: true,
    require: { ClassDeclaration: true, FunctionDeclaration: true, MethodDefinition: true },
    contexts: ["TSInterfaceDeclaration", "TSTypeAliasDeclaration", ...more],
    checkConstructors: false,
  };
}

export default tseslint.config(
  { ignores: ["dist/", "build/", "src/gen/"] },
  {
    files: ["**/*.ts"],
    extends: [...tseslint.configs.strictTypeChecked, ...tseslint.configs.stylisticTypeChecked],
    languageOptions: {
      parserOptions: {
        project: ["tsconfig.json", "tsconfig.driver.json", "tsconfig.test.json"],
        tsconfigRootDir: import.meta.dirname,
      },
    },
    rules: {
      "@typescript-eslint/consistent-type-imports": "error",
      "@typescript-eslint/explicit-module-boundary-types": "error",
      "@typescript-eslint/no-explicit-any": "error",
      // The compiler's noPropertyAccessFromIndexSignature wants the brackets.
      "@typescript-eslint/dot-notation": "off",
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      "@typescript-eslint/consistent-type-definitions": "off",
      // An empty text stands for none, in the contract as in the environment.
      "@typescript-eslint/prefer-nullish-coalescing": "off",
    },
  },
  {
    files: ["src/**/*.ts"],
    plugins: { jsdoc },
    rules: { "jsdoc/require-jsdoc": ["error", documented()] },
  },
  {
    // Whose names are the package's.
    files: ["client", "control", "duplex", "errors", "once", "settings", "synthesis", "transcription"].map(
      (name) => `src/${name}.ts`,
    ),
    rules: {
      "jsdoc/require-jsdoc": ["error", documented("ExportNamedDeclaration > TSInterfaceDeclaration TSPropertySignature")],
    },
  },
  {
    files: ["test/**/*.ts", "driver/**/*.ts"],
    rules: {
      // node:test collects the promises of `it` and `describe` itself.
      "@typescript-eslint/no-floating-promises": "off",
      "@typescript-eslint/require-await": "off",
      // A fake gateway says numbers, as the wire does.
      "@typescript-eslint/no-unsafe-enum-assignment": "off",
    },
  },
);
