#include "trainer/parameter_groups.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/testing/matchers.h"

namespace osler {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::Fails;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;

// Slots: 0 embedding, 1 and 2 the layer's matrix and norm, 3 and 4 the next layer's, 5 final norm.
ParameterStore Store() {
  ParameterStore store;
  store.Declare("model.embed_tokens.weight", {4, 2});
  for (const char* layer : {"model.layers.0.", "model.layers.1."}) {
    store.Declare(std::string(layer) + "mlp.up_proj.weight", {2, 2});
    store.Declare(std::string(layer) + "input_layernorm.weight", {2});
  }
  store.Declare("model.norm.weight", {2});
  return store;
}

config::ParameterGroup& AddGroup(config::Train& config, const std::string& match) {
  config::ParameterGroup& group = *config.mutable_optimizer()->add_groups();
  group.set_match(match);
  group.set_lr_scale(1);
  return group;
}

std::vector<bool> Trainable(const ParameterStore& store) {
  std::vector<bool> result;
  for (const ParameterSlot& slot : store.slots()) result.push_back(slot.trainable);
  return result;
}

TEST(ParameterGroupsTest, WithoutSettingsOneGroupHoldsAll) {
  ParameterStore store = Store();
  config::Train config;
  config.mutable_optimizer()->set_weight_decay(0.25);
  ASSERT_OK_AND_ASSIGN(const auto groups, GroupParameters(config, store));
  ASSERT_EQ(groups.size(), 1u);
  EXPECT_EQ(groups[0].lr_scale, 1);
  EXPECT_EQ(groups[0].weight_decay, 0.25);
  EXPECT_THAT(groups[0].slots, ElementsAre(0, 1, 2, 3, 4, 5));
}

TEST(ParameterGroupsTest, TheFirstMatchWins) {
  ParameterStore store = Store();
  config::Train config;
  config.mutable_optimizer()->set_weight_decay(0.25);
  AddGroup(config, "*norm.weight").set_weight_decay(0);
  AddGroup(config, "model.layers.1.*").set_lr_scale(0.5);
  ASSERT_OK_AND_ASSIGN(const auto groups, GroupParameters(config, store));
  ASSERT_EQ(groups.size(), 3u);
  EXPECT_THAT(groups[0].slots, ElementsAre(2, 4, 5));
  EXPECT_EQ(groups[0].weight_decay, 0);
  EXPECT_THAT(groups[1].slots, ElementsAre(3));
  EXPECT_EQ(groups[1].lr_scale, 0.5);
  EXPECT_EQ(groups[1].weight_decay, 0.25);
  EXPECT_THAT(groups[2].slots, ElementsAre(0, 1));
}

TEST(ParameterGroupsTest, FrozenParametersAreInNoGroup) {
  ParameterStore store = Store();
  config::Train config;
  config.mutable_train()->add_freeze("model.embed_tokens.*");
  config.mutable_train()->add_freeze("*.0.*");
  AddGroup(config, "model.layers.0.*");
  ::testing::internal::CaptureStderr();
  ASSERT_OK_AND_ASSIGN(const auto groups, GroupParameters(config, store));
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              AllOf(HasSubstr("optimizer.groups.0"), HasSubstr("frozen")));
  EXPECT_THAT(Trainable(store), ElementsAre(false, false, false, true, true, true));
  EXPECT_THAT(groups[0].slots, IsEmpty());
  EXPECT_THAT(groups[1].slots, ElementsAre(3, 4, 5));
}

TEST(ParameterGroupsTest, TrainOnlyFreezesTheRest) {
  ParameterStore store = Store();
  config::Train config;
  config.mutable_train()->add_train_only("model.layers.1.*");
  config.mutable_train()->add_train_only("model.norm.weight");
  ASSERT_THAT(GroupParameters(config, store), IsOk());
  EXPECT_THAT(Trainable(store), ElementsAre(false, false, false, true, true, true));
}

TEST(ParameterGroupsTest, APatternWithoutAMatchNamesTheNearest) {
  ParameterStore store = Store();
  config::Train config;
  config.mutable_train()->add_freeze("model.embed_tokens.*");
  config.mutable_train()->add_freeze("model.layer.1.*");
  EXPECT_THAT(GroupParameters(config, store),
              Fails(ExitCode::kConfig, AllOf(HasSubstr("train.freeze.1: 'model.layer.1.*'"),
                                             HasSubstr("are model.layers.1.mlp.up_proj.weight"))));
  config.mutable_train()->clear_freeze();
  AddGroup(config, "lm_head.*");
  EXPECT_THAT(GroupParameters(config, store),
              Fails(ExitCode::kConfig, HasSubstr("optimizer.groups.0.match: 'lm_head.*'")));
}

TEST(ParameterGroupsTest, SomethingMustBeTrained) {
  ParameterStore store = Store();
  config::Train config;
  config.mutable_train()->add_freeze("*");
  EXPECT_THAT(GroupParameters(config, store), Fails(ExitCode::kConfig, HasSubstr("train.freeze")));
}

}  // namespace
}  // namespace osler
